/** The ledger of what a cluster has at its provider: an intent before each call, the id after it. */
import { isExisting, isRefusal, isUnseen } from '../src/clients/aws/errors.ts';
import type { Catalog, ResourceRow } from '../src/clients/catalog.ts';
import {
  clientToken,
  AWS_TAGS,
  carries,
  clusterTags,
  ownerTags,
  type Owner,
  type Tags,
} from '../src/domain/aws-names.ts';
import { FleetError, messageOf } from '../src/domain/errors.ts';
import { clusterKey, type ClusterRef } from '../src/domain/naming.ts';
import { workflowRun } from './context.ts';
import type { ActivityDeps } from './deps.ts';

/** A thing to have exactly once. */
export interface Wanted {
  /** What it is to the cluster, such as `subnet/private/us-east-1a`. */
  readonly slot: string;
  readonly kind: string;
  /** Ids of what carries exactly these tags. */
  readonly find: (tags: Tags) => Promise<readonly string[]>;
  /** Make it, with these tags. */
  readonly create: (tags: Tags, token: string) => Promise<string>;
  /** Whether `create` honours the token: repeating it makes no second one, so an unknown outcome needs no waiting. */
  readonly hasToken: boolean;
  /** Remove one that was made twice. */
  readonly remove: (id: string) => Promise<unknown>;
}

export class Ledger {
  readonly owner: Owner;
  readonly region: string;
  readonly #catalog: Catalog;
  readonly #ref: ClusterRef;
  readonly #runId: string;
  readonly #graceMs: number;

  private constructor(deps: ActivityDeps, ref: ClusterRef, region: string, installation: string, of?: string) {
    const { workflowId, runId } = workflowRun();
    const { tenant, cluster } = ref;
    this.#ref = { tenant, cluster };
    this.owner = { tenant, cluster, installation, operation: of ?? workflowId };
    this.region = region;
    this.#catalog = deps.catalog;
    this.#runId = runId;
    this.#graceMs = deps.config.FLEET_AWS_CONSISTENCY_SECONDS * 1000;
  }

  /** @param of operation whose resources are meant; default: the one that runs */
  static async open(deps: ActivityDeps, ref: ClusterRef, region: string, of?: string): Promise<Ledger> {
    return new Ledger(deps, ref, region, await deps.catalog.installation(), of);
  }

  /** Tags of what this operation makes. */
  tags(slot: string): Tags {
    return { ...ownerTags(this.owner), [AWS_TAGS.slot]: slot, Name: `${clusterKey(this.#ref)}/${slot}`.slice(0, 256) };
  }

  /** Tags of what may be removed: of the whole cluster, or, for a compensation, of this operation only. */
  scope(onlyOwn: boolean): Tags {
    return onlyOwn ? ownerTags(this.owner) : clusterTags(this.owner);
  }

  /**
   * Have a thing exactly once, although its creation may have happened without anybody having been told.
   *
   * 1. The intent is written before the call, the id after it. An id that is known is the answer.
   * 2. What carries this operation's tags and this slot is adopted, and nothing else is.
   * 3. Where a call was sent, has no token, and nothing is found, lists may lag: wait, then make it.
   * 4. Of two makers the first to record its id wins; the other removes what it made.
   *
   * @throws FleetError `InfrastructureNotReady` while an earlier call may still show its effect
   */
  async obtain(wanted: Wanted): Promise<string> {
    const { slot, kind, find, create, hasToken, remove } = wanted;
    const row = await this.intend(slot, kind);
    if (row.resource_id !== null) return row.resource_id;
    const [known] = await find({ ...ownerTags(this.owner), [AWS_TAGS.slot]: slot });
    if (known !== undefined) return (await this.record(slot, known)) ?? known;
    if (!hasToken && this.#mayShowUp(row)) {
      throw new FleetError(
        'InfrastructureNotReady',
        `A ${kind} for "${slot}" may have been made at ${row.called_at?.toISOString()}; looking for it until AWS must list it.`,
      );
    }
    const made = await this.calling(slot, () => create(this.tags(slot), row.token)).catch((error: unknown) => {
      // What an earlier call made, and lists do not show yet, is in the way of its like.
      if (!isExisting(error) || row.called_at === null) throw error;
      throw new FleetError('InfrastructureNotReady', `A ${kind} for "${slot}" is there, but not listed yet.`, {
        cause: error,
      });
    });
    const recorded = await this.record(slot, made);
    if (recorded === undefined || recorded === made) return made;
    await remove(made);
    return recorded;
  }

  /**
   * Have a thing with a name of its own, which can exist only once.
   *
   * @param wanted `read`: its tags, or undefined when there is none. `create`: make it
   * @throws FleetError `ResourceNotOurs` when one of that name exists and was not made by this operation
   */
  async obtainNamed(wanted: {
    readonly slot: string;
    readonly kind: string;
    readonly name: string;
    readonly read: () => Promise<Tags | undefined>;
    readonly create: (tags: Tags, token: string) => Promise<unknown>;
  }): Promise<void> {
    const { slot, kind, name, read, create } = wanted;
    const row = await this.intend(slot, kind);
    let found = await read();
    if (found === undefined) {
      try {
        await this.calling(slot, () => create(this.tags(slot), row.token));
      } catch (error) {
        // Somebody made one of that name since, or lists lagged: whose is it?
        found = await read();
        if (found === undefined && isExisting(error)) {
          const message = `The ${kind} "${name}" is there, but cannot be looked at yet.`;
          throw new FleetError('InfrastructureNotReady', message, { cause: error });
        }
        if (found === undefined) throw error;
      }
    }
    if (found !== undefined && !carries(found, ownerTags(this.owner))) throw this.notOurs(kind, name, found);
    await this.record(slot, name);
  }

  notOurs(kind: string, name: string, found: Tags): FleetError {
    const mine = carries(found, clusterTags(this.owner));
    const whose = mine
      ? `was left by operation "${found[AWS_TAGS.operation]}" of this cluster. Remove it by InfrastructureSweep, then try again.`
      : 'was not made by this operation. Remove it or rename it, or choose another cluster name.';
    return new FleetError('ResourceNotOurs', `The ${kind} "${name}" in ${this.region} exists and ${whose}`);
  }

  /** Write down that a thing is going to be made. Repeating changes nothing. */
  intend(slot: string, kind: string): Promise<ResourceRow> {
    const { operation } = this.owner;
    const fresh = { ...this.#ref, slot, kind, region: this.region, operation, called_at: null };
    const token = clientToken(this.#runId, slot);
    return this.#catalog.run('write down an intent', async (db) => {
      await db
        .insertInto('resources')
        .values({ ...fresh, token, resource_id: null })
        .onConflict((conflict) => conflict.columns(['tenant', 'cluster', 'slot']).doNothing())
        .execute();
      const row = await db
        .selectFrom('resources')
        .selectAll()
        .where('tenant', '=', this.#ref.tenant)
        .where('cluster', '=', this.#ref.cluster)
        .where('slot', '=', slot)
        .executeTakeFirstOrThrow();
      if (row.operation === operation && row.token === token) return row;
      // 1. An earlier operation on this cluster name wrote the row: what it made is not this one's to adopt.
      // 2. An earlier run of this operation did: its things are found by their tags, unless they are gone by now; and
      //    its token would only bring back its answers.
      const called = row.operation === operation ? { called_at: row.called_at } : {};
      return db
        .updateTable('resources')
        .set({ ...fresh, ...called, token, resource_id: null })
        .where('tenant', '=', this.#ref.tenant)
        .where('cluster', '=', this.#ref.cluster)
        .where('slot', '=', slot)
        .returningAll()
        .executeTakeFirstOrThrow();
    });
  }

  /** Record an id unless another one is there. @returns the id that counts, or undefined when the intent is gone */
  async record(slot: string, id: string): Promise<string | undefined> {
    return this.#catalog.run('record a resource', async (db) => {
      const rows = db
        .updateTable('resources')
        .where('tenant', '=', this.#ref.tenant)
        .where('cluster', '=', this.#ref.cluster)
        .where('slot', '=', slot);
      const won = await rows.set({ resource_id: id }).where('resource_id', 'is', null).returning('slot').execute();
      if (won.length > 0) return id;
      const row = (await this.#catalog.resources(this.#ref)).find((one) => one.slot === slot);
      return row?.resource_id ?? undefined;
    });
  }

  /** Forget the intents of these kinds; call when a look at the account found none of them left. */
  async forgetKinds(kinds: readonly string[], onlyOwn: boolean): Promise<void> {
    await this.#catalog.run('forget resources', (db) => {
      const query = db
        .deleteFrom('resources')
        .where('tenant', '=', this.#ref.tenant)
        .where('cluster', '=', this.#ref.cluster)
        .where('kind', 'in', [...kinds]);
      return (onlyOwn ? query.where('operation', '=', this.owner.operation) : query).execute();
    });
  }

  /**
   * Whether something of these kinds may still show up: it was made a moment ago, or may have been, and no list has
   * shown it. Whoever removes things waits for it, or would leave it behind.
   */
  async unsettled(kinds: readonly string[]): Promise<ResourceRow | undefined> {
    return (await this.#rowsOf(kinds)).find((row) => this.#mayShowUp(row));
  }

  /** These have been seen in the account: nothing has to be waited for on their account. */
  async seen(slots: readonly (string | undefined)[]): Promise<void> {
    const known = slots.filter((slot) => slot !== undefined);
    if (known.length === 0) return;
    await this.#catalog.run('write down what was seen', (db) =>
      db
        .updateTable('resources')
        .set({ called_at: null })
        .where('tenant', '=', this.#ref.tenant)
        .where('cluster', '=', this.#ref.cluster)
        .where('slot', 'in', known)
        .execute(),
    );
  }

  /**
   * Have EKS asked again while it may not see what this operation has just made by EC2 or IAM, which it takes for a
   * mistake of the caller's. Two minutes is what Terraform's provider gives a role to be seen.
   *
   * @throws FleetError `InfrastructureNotReady` while that may be so
   */
  async settling<T>(send: () => Promise<T>): Promise<T> {
    try {
      return await send();
    } catch (error) {
      if (!isUnseen(error)) throw error;
      const { operation } = this.owner;
      const since = Date.now() - Math.max(this.#graceMs, 120_000);
      const rows = await this.#catalog.resources(this.#ref);
      if (!rows.some((row) => row.operation === operation && (row.called_at?.getTime() ?? 0) > since)) throw error;
      const message = `EKS does not see yet what was just made: ${messageOf(error)}`;
      throw new FleetError('InfrastructureNotReady', message, { cause: error });
    }
  }

  /** How often a thing of this slot was begun: `slot`, then `slot#2`, and so on. */
  async tries(slot: string): Promise<number> {
    const rows = await this.#catalog.resources(this.#ref);
    return rows.filter((row) => row.operation === this.owner.operation && row.slot.split('#')[0] === slot).length;
  }

  /** `kind id` of what was recorded of these kinds, whether or not it is still there. */
  async recorded(kinds: readonly string[], onlyOwn: boolean): Promise<string[]> {
    return (await this.#rowsOf(kinds))
      .filter(({ operation, resource_id: id }) => id !== null && (!onlyOwn || operation === this.owner.operation))
      .map(({ kind, resource_id: id }) => `${kind} ${id}`);
  }

  async #rowsOf(kinds: readonly string[]): Promise<ResourceRow[]> {
    return (await this.#catalog.resources(this.#ref)).filter(({ kind }) => kinds.includes(kind));
  }

  #mayShowUp({ called_at: calledAt }: ResourceRow): boolean {
    return calledAt !== null && Date.now() - calledAt.getTime() < this.#graceMs;
  }

  /** Send a call that makes something. What is written down about it goes again when AWS says that it made nothing. */
  async calling<T>(slot: string, send: () => Promise<T>): Promise<T> {
    await this.#setCalled(slot, new Date());
    try {
      return await send();
    } catch (error) {
      if (isRefusal(error)) await this.#setCalled(slot, null);
      throw error;
    }
  }

  async #setCalled(slot: string, calledAt: Date | null): Promise<void> {
    await this.#catalog.run('write down a call', (db) =>
      db
        .updateTable('resources')
        .set({ called_at: calledAt })
        .where('tenant', '=', this.#ref.tenant)
        .where('cluster', '=', this.#ref.cluster)
        .where('slot', '=', slot)
        .execute(),
    );
  }
}
