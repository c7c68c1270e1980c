/** The emulators behind the proxy. */
import { request, type Agent } from 'undici';
import type { Answer, AwsCall } from './call.ts';

/** URL of the emulator by service; `*` for those that are not named. */
export type Routes = Readonly<Record<string, string>>;

/** Whose request it is: the emulators read account and region from the signature's scope. */
export type Caller = Pick<AwsCall, 'region' | 'accessKeyId'>;

export class Upstream {
  readonly #routes: Routes;
  readonly #agent: Agent;

  constructor(routes: Routes, agent: Agent) {
    this.#routes = routes;
    this.#agent = agent;
  }

  /** Passes a call on as it came. */
  send({ service, request: { method, path, headers, body } }: AwsCall): Promise<Answer> {
    const passed = Object.entries(headers).flatMap(([name, value]) =>
      value === undefined || /^(connection|content-length|transfer-encoding|expect)$/.test(name)
        ? []
        : [[name, value] as const],
    );
    return this.#request(service, method, path, Object.fromEntries(passed), body);
  }

  /** Asks EKS something of the proxy's own. */
  eks(caller: Caller, method: string, path: string): Promise<Answer> {
    return this.#request('eks', method, path, { authorization: signature(caller, 'eks') });
  }

  /** Calls EC2 for something of the proxy's own. */
  ec2(caller: Caller, params: Readonly<Record<string, string>>): Promise<Answer> {
    const headers = {
      authorization: signature(caller, 'ec2'),
      'content-type': 'application/x-www-form-urlencoded',
    };
    const body = new URLSearchParams({ ...params, Version: '2016-11-15' }).toString();
    return this.#request('ec2', 'POST', '/', headers, body);
  }

  async #request(
    service: string,
    method: string,
    path: string,
    headers: Readonly<Record<string, string | string[]>>,
    body?: Buffer | string,
  ): Promise<Answer> {
    const route = this.#routes[service] ?? this.#routes['*'];
    if (route === undefined) throw new Error(`The proxy has no emulator for ${service}.`);
    const sent = body !== undefined && body.length > 0 ? { body } : {};
    const answer = await request(route + path, {
      method: method as 'GET',
      headers,
      ...sent,
      dispatcher: this.#agent,
    });
    const kept = Object.entries(answer.headers).flatMap(([name, value]) =>
      value === undefined || /^(connection|keep-alive|content-length|transfer-encoding)$/.test(name)
        ? []
        : [[name, value] as const],
    );
    return { status: answer.statusCode, headers: Object.fromEntries(kept), body: await answer.body.text() };
  }
}

/** A scope without a valid signature: the emulators do not check it. */
function signature({ accessKeyId, region }: Caller, service: string): string {
  const date = new Date().toISOString().slice(0, 10).replaceAll('-', '');
  const scope = `${accessKeyId}/${date}/${region}/${service}/aws4_request`;
  return `AWS4-HMAC-SHA256 Credential=${scope}, SignedHeaders=host, Signature=${'0'.repeat(64)}`;
}
