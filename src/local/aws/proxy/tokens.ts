/** Client tokens, as AWS documents them; neither emulator honours them. */
import { createHash } from 'node:crypto';
import { errorAnswer } from './answers.ts';
import type { Answer, AwsCall, Layer } from './call.ts';

/**
 * 1. The same token with the same parameters gets the first answer again, and nothing happens.
 * 2. The same token with other parameters is refused: IdempotentParameterMismatch.
 * 3. Only answers of success are kept.
 * 4. Of two at the same time the second waits for the first.
 *
 * https://docs.aws.amazon.com/ec2/latest/devguide/ec2-api-idempotency.html. EKS documents the tokens' purpose only: the
 * refusal has EC2's code there too. A token is kept for as long as the proxy lives, also when what it made is deleted.
 */
export class ClientTokens implements Layer {
  readonly #kept = new Map<string, { fingerprint: string; answer: Promise<Answer> }>();

  clear(): void {
    this.#kept.clear();
  }

  async handle(call: AwsCall, next: () => Promise<Answer>): Promise<Answer> {
    const { clientRequestToken, ClientToken, ...others } = call.params;
    const token = call.service === 'ec2' ? ClientToken : call.service === 'eks' ? clientRequestToken : undefined;
    if (typeof token !== 'string') return next();
    const problem = lengthProblem(call.service, token);
    if (problem !== undefined) return errorAnswer(call, 400, ...problem);

    const key = [call.service, call.region, call.accessKeyId, call.operation, token].join('\n');
    const fingerprint = fingerprintOf(others);
    const earlier = this.#kept.get(key);
    if (earlier !== undefined) {
      if (earlier.fingerprint === fingerprint) return earlier.answer;
      const message = `The client token ${token} was used with other parameters before.`;
      return errorAnswer(call, 400, 'IdempotentParameterMismatch', message);
    }
    const answer = next();
    this.#kept.set(key, { fingerprint, answer });
    const forget = () => this.#kept.delete(key);
    try {
      if ((await answer).status >= 300) forget();
    } catch (error) {
      forget();
      throw error;
    }
    return answer;
  }
}

/** EC2 takes 64 ASCII characters. EKS refused less than 33 or more than 126 when it was asked. */
function lengthProblem(service: string, token: string): [string, string] | undefined {
  if (service === 'ec2' && token.length > 64) {
    return ['InvalidParameterValue', 'The client token is longer than 64 characters.'];
  }
  if (service === 'eks' && (token.length < 33 || token.length > 126)) {
    return ['InvalidParameterException', 'The client request token must be between 33 and 126 characters long.'];
  }
  return undefined;
}

function fingerprintOf(params: Readonly<Record<string, unknown>>): string {
  const ordered = JSON.stringify(params, (_key, value: unknown) =>
    typeof value === 'object' && value !== null && !Array.isArray(value)
      ? Object.fromEntries(Object.entries(value).sort(([a], [b]) => (a < b ? -1 : 1)))
      : value,
  );
  return createHash('sha256').update(ordered).digest('hex');
}
