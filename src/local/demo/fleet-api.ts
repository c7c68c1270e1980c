/** The fleet's HTTP API as a client sees it. */
import { setTimeout as sleep } from 'node:timers/promises';
import type { Step } from '../../domain/operation.ts';

/** An operation, as `GET /v1/operations/{id}` answers it. */
export interface OperationView {
  readonly id: string;
  readonly done: boolean;
  readonly percent: number;
  readonly steps: readonly Step[];
  readonly error?: { readonly code: string; readonly detail: string };
  readonly result?: Readonly<Record<string, unknown>>;
}

/** Milliseconds between two looks at an operation. */
const PACE = 300;

export class FleetApi {
  readonly #url: string;
  readonly #token: string;

  constructor(url: string, token: string) {
    this.#url = url;
    this.#token = token;
  }

  async clusterExists(name: string): Promise<boolean> {
    return (await this.#send('GET', `/v1/clusters/${name}`)).status === 200;
  }

  create(cluster: Record<string, unknown>): Promise<string> {
    return this.#start('POST', '/v1/clusters', cluster);
  }

  update(cluster: string, change: Record<string, unknown>): Promise<string> {
    return this.#start('PATCH', `/v1/clusters/${cluster}`, change);
  }

  act(cluster: string, verb: string, options: Record<string, unknown> = {}): Promise<string> {
    return this.#start('POST', `/v1/clusters/${cluster}/${verb}`, options);
  }

  remove(cluster: string): Promise<string> {
    return this.#start('DELETE', `/v1/clusters/${cluster}`);
  }

  backUp(cluster: string): Promise<string> {
    return this.#start('POST', `/v1/clusters/${cluster}/backups`, {});
  }

  restore(backup: string, target: Record<string, unknown>): Promise<string> {
    return this.#start('POST', `/v1/backups/${backup}/restores`, target);
  }

  /** The operation again and again, until it is done. */
  async *watch(id: string): AsyncGenerator<OperationView> {
    for (;;) {
      const answer = await this.#send('GET', `/v1/operations/${encodeURIComponent(id)}`);
      if (answer.status !== 200) throw new Error(await problem(answer));
      const operation = (await answer.json()) as OperationView;
      yield operation;
      if (operation.done) return;
      await sleep(PACE);
    }
  }

  /** @returns the id of the operation that was started */
  async #start(method: string, path: string, body?: Record<string, unknown>): Promise<string> {
    const answer = await this.#send(method, path, body);
    if (answer.status !== 202) throw new Error(`${method} ${path}: ${await problem(answer)}`);
    return ((await answer.json()) as { operation: { id: string } }).operation.id;
  }

  #send(method: string, path: string, body?: Record<string, unknown>): Promise<Response> {
    return fetch(`${this.#url}${path}`, {
      method,
      headers: { authorization: `Bearer ${this.#token}`, 'content-type': 'application/json' },
      ...(body !== undefined && { body: JSON.stringify(body) }),
    });
  }
}

async function problem(answer: Response): Promise<string> {
  const { code, detail } = (await answer.json()) as { code?: string; detail?: string };
  return `${answer.status} ${code ?? ''}: ${detail ?? ''}`;
}
