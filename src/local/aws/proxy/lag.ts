/** Eventual consistency: what was created is not seen at once. */
import { errorAnswer, withJson } from './answers.ts';
import type { Answer, AwsCall, Layer } from './call.ts';
import { createdId, CREATIONS } from './resources.ts';
import { childText, dropMembers, parseXml, writeXml } from './xml.ts';

export interface LagRule {
  /** The create whose result is not seen, such as `CreateVpc`, `CreateRole`, `CreateCluster`. */
  readonly operation: string;
  /** Describes and lists that do not show it. */
  readonly describes: number;
  /** Creates it applies to; default 1. */
  readonly times?: number;
}

/** The EKS creates that can lag: the describe and the list of each, and the member that names it. */
const EKS: Readonly<Record<string, { describe: string; list: string; member: string; names: string }>> = {
  CreateCluster: { describe: 'DescribeCluster', list: 'ListClusters', member: 'name', names: 'clusters' },
  CreateNodegroup: {
    describe: 'DescribeNodegroup',
    list: 'ListNodegroups',
    member: 'nodegroupName',
    names: 'nodegroups',
  },
  CreateAddon: { describe: 'DescribeAddon', list: 'ListAddons', member: 'addonName', names: 'addons' },
};

interface Hidden {
  readonly operation: string;
  /** Id, or name within its cluster. */
  readonly id: string;
  readonly cluster: unknown;
  left: number;
}

export class Lag implements Layer {
  #rules: { rule: LagRule; left: number }[] = [];
  #hidden: Hidden[] = [];

  add(...rules: readonly LagRule[]): void {
    this.#rules.push(...rules.map((rule) => ({ rule, left: rule.times ?? 1 })));
  }

  clear(): void {
    this.#rules = [];
    this.#hidden = [];
  }

  async handle(call: AwsCall, next: () => Promise<Answer>): Promise<Answer> {
    if (call.service === 'eks') return this.#eks(call, next);
    const hidden = this.#hidden.filter(({ operation }) => CREATIONS[operation]?.shownBy.includes(call.operation));
    // By its id, not by a filter: that finds nothing instead.
    const ids = Object.entries(call.params).flatMap(([name, value]) => (name.startsWith('Filter.') ? [] : [value]));
    const named = hidden.find(({ id }) => ids.includes(id));
    if (named !== undefined) {
      this.#count(named);
      const code = CREATIONS[named.operation]?.notFound ?? 'NotFound';
      return errorAnswer(call, call.service === 'iam' ? 404 : 400, code, `The ID '${named.id}' does not exist`);
    }
    const answer = await next();
    const rule = this.#ruleFor(call.operation);
    const id = rule && createdId(call, answer);
    if (rule !== undefined && id !== undefined) this.#hide(rule, { operation: call.operation, id, cluster: undefined });
    return hidden.length === 0 || answer.status >= 300 ? answer : this.#withoutMembers(answer, hidden);
  }

  async #eks(call: AwsCall, next: () => Promise<Answer>): Promise<Answer> {
    for (const hidden of this.#hidden) {
      const kind = EKS[hidden.operation];
      if (kind === undefined || (hidden.cluster !== undefined && hidden.cluster !== call.params['name'])) continue;
      if (call.operation === kind.describe && call.params[kind.member] === hidden.id) {
        this.#count(hidden);
        return errorAnswer(call, 404, 'ResourceNotFoundException', `No resource found for name: ${hidden.id}.`);
      }
      if (call.operation === kind.list) {
        this.#count(hidden);
        const answer = await next();
        const body = JSON.parse(answer.body) as Record<string, string[]>;
        const names = (body[kind.names] ?? []).filter((name) => name !== hidden.id);
        return withJson(answer, { ...body, [kind.names]: names });
      }
    }
    const answer = await next();
    const [rule, kind] = [this.#ruleFor(call.operation), EKS[call.operation]];
    if (rule !== undefined && kind !== undefined && answer.status < 300) {
      const cluster = kind.member === 'name' ? undefined : call.params['name'];
      this.#hide(rule, { operation: call.operation, id: String(call.params[kind.member]), cluster });
    }
    return answer;
  }

  #ruleFor(operation: string) {
    return this.#rules.find(({ rule, left }) => rule.operation === operation && left > 0);
  }

  #hide(entry: { rule: LagRule; left: number }, what: Omit<Hidden, 'left'>): void {
    entry.left -= 1;
    this.#hidden.push({ ...what, left: entry.rule.describes });
  }

  #count(hidden: Hidden): void {
    hidden.left -= 1;
    if (hidden.left <= 0) this.#hidden = this.#hidden.filter((other) => other !== hidden);
  }

  #withoutMembers(answer: Answer, hidden: readonly Hidden[]): Answer {
    const root = parseXml(answer.body);
    for (const one of hidden) {
      const field = CREATIONS[one.operation]?.id ?? '';
      dropMembers(root, (member) => childText(member, field) === one.id);
      this.#count(one);
    }
    return { ...answer, body: writeXml(root) };
  }
}
