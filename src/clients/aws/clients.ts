/** The AWS SDK's clients of one region, as the activities use them. */
import { setTimeout as sleep } from 'node:timers/promises';
import { type AutoScaling } from '@aws-sdk/client-auto-scaling';
import { type EC2 } from '@aws-sdk/client-ec2';
import { type EKS } from '@aws-sdk/client-eks';
import { type IAM } from '@aws-sdk/client-iam';
import { type S3 } from '@aws-sdk/client-s3';
import { type STS } from '@aws-sdk/client-sts';
import { isThrottled, mapAwsError } from './errors.ts';

/** A call as it was sent: `ec2:CreateVpc`, and how it ended. */
export interface AwsCall {
  readonly action: string;
  readonly region: string;
  /** `ok`, or the code of the failure. */
  readonly outcome: string;
}

export interface AwsOptions {
  /** Address of another AWS than Amazon's, for all services. */
  readonly endpoint?: string;
  /** How long an answer may take; default 60,000 ms. */
  readonly timeoutMs?: number;
  readonly onCall?: (call: AwsCall) => void;
}

/** Clients of one region. Every failure is a FleetError; see errors.ts. */
export interface Aws {
  readonly region: string;
  readonly autoscaling: AutoScaling;
  readonly ec2: EC2;
  readonly eks: EKS;
  readonly iam: IAM;
  readonly s3: S3;
  readonly sts: STS;
}

/**
 * Clients by region, made when they are first asked for.
 *
 * 1. Reads are repeated by the SDK. Changes are repeated when they were throttled, and else sent once: a change without
 *    a client token whose answer was lost may have happened, and only the activity knows how to look. Temporal repeats
 *    the activity.
 * 2. A call without an answer is given up after a minute, and counts as one whose answer was lost.
 * 3. The packages are loaded when AWS is first used: most fleets never do, and EC2's alone is large.
 */
export class AwsClients {
  readonly #options: AwsOptions;
  readonly #regions = new Map<string, Promise<Aws>>();

  constructor(options: AwsOptions) {
    this.#options = options;
  }

  of(region: string): Promise<Aws> {
    const known = this.#regions.get(region);
    if (known !== undefined) return known;
    const made = this.#open(region);
    this.#regions.set(region, made);
    return made;
  }

  get endpoint(): string | undefined {
    return this.#options.endpoint;
  }

  async #open(region: string): Promise<Aws> {
    const [{ AutoScaling }, { EC2 }, { EKS }, { IAM }, { S3 }, { STS }] = await Promise.all([
      import('@aws-sdk/client-auto-scaling'),
      import('@aws-sdk/client-ec2'),
      import('@aws-sdk/client-eks'),
      import('@aws-sdk/client-iam'),
      import('@aws-sdk/client-s3'),
      import('@aws-sdk/client-sts'),
    ]);
    const { endpoint, timeoutMs = 60_000 } = this.#options;
    const requestHandler = { connectionTimeout: 10_000, requestTimeout: timeoutMs, throwOnRequestTimeout: true };
    const base = { region, requestHandler, ...(endpoint !== undefined && { endpoint, forcePathStyle: true }) };
    const pair = <C extends object>(
      service: string,
      Client: new (settings: typeof base & { maxAttempts: number }) => C,
    ) =>
      this.#guarded(region, service, new Client({ ...base, maxAttempts: 4 }), new Client({ ...base, maxAttempts: 1 }));
    return {
      region,
      autoscaling: pair('autoscaling', AutoScaling),
      ec2: pair('ec2', EC2),
      eks: pair('eks', EKS),
      iam: pair('iam', IAM),
      s3: pair('s3', S3),
      sts: pair('sts', STS),
    };
  }

  /** One client whose reads go to `reader` and whose changes go to `writer`, with mapped errors. */
  #guarded<C extends object>(region: string, service: string, reader: C, writer: C): C {
    return new Proxy(writer, {
      get: (_target, name) => {
        if (typeof name !== 'string') return undefined;
        const client = /^(?:describe|list|get|head)/.test(name) ? reader : writer;
        const method = (client as Record<string, unknown>)[name];
        if (typeof method !== 'function') return method;
        const action = `${service}:${name.charAt(0).toUpperCase()}${name.slice(1)}`;
        return async (...args: unknown[]) => {
          try {
            const send = () => (method as (...args: unknown[]) => Promise<unknown>).apply(client, args);
            const answer: unknown = await (client === reader ? send() : unlessThrottled(send));
            this.#options.onCall?.({ action, region, outcome: 'ok' });
            return answer;
          } catch (error) {
            const failure = mapAwsError(error, action);
            this.#options.onCall?.({ action, region, outcome: failure.code });
            throw failure;
          }
        };
      },
    });
  }
}

/** Times that a throttled change is sent; the waits between them come to about six seconds at most. */
const THROTTLED_TRIES = 6;

/** Send a change, and send it again while AWS turns it away unread. An activity makes many; each would cost it an attempt. */
async function unlessThrottled<T>(send: () => Promise<T>): Promise<T> {
  for (let attempt = 1; ; attempt += 1) {
    try {
      return await send();
    } catch (error) {
      if (attempt === THROTTLED_TRIES || !isThrottled(error)) throw error;
      // With full jitter, so that callers beside each other come apart (AWS Builders' Library, "Timeouts, retries and backoff").
      await sleep(Math.random() * 200 * 2 ** (attempt - 1));
    }
  }
}
