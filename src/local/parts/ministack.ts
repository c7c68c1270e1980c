import { join } from 'node:path';
import type { Part } from '../supervisor.ts';
import { answersOk } from './probes.ts';

interface Options {
  readonly python: string;
  readonly dataDir: string;
  readonly port: number;
  /** The key of the account's root, who becomes the administrator of the clusters that it creates. */
  readonly accessKeyId: string;
}

/** ministack: AWS with the whole of EKS' surface for access and add-ons. Keeps everything in memory. */
export function ministackPart(options: Options): Part {
  const url = `http://127.0.0.1:${options.port}`;
  return {
    name: 'ministack',
    address: url,
    command: options.python,
    args: ['-m', 'ministack'],
    env: {
      BIND_HOST: '127.0.0.1',
      GATEWAY_PORT: String(options.port),
      MINISTACK_HOST: '127.0.0.1',
      // As moto's, so that an ARN of one is of the same account in the other.
      MINISTACK_ACCOUNT_ID: '123456789012',
      AWS_ACCESS_KEY_ID: options.accessKeyId,
      // An MQTT port that nobody here uses.
      IOT_MTLS_ENABLED: '0',
      SFTP_ENABLED: '0',
      // Its pid file and its buckets stay with the stack.
      TMPDIR: join(options.dataDir, 'run'),
      S3_DATA_DIR: join(options.dataDir, 'ministack-s3'),
    },
    isReady: () => answersOk(`${url}/_ministack/ready`),
  };
}
