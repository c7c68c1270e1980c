import { mkdir } from 'node:fs/promises';
import { join } from 'node:path';
import { CreateBucketCommand, S3Client, S3ServiceException } from '@aws-sdk/client-s3';
import type { Ports } from '../ports.ts';
import type { Secrets } from '../secrets.ts';
import type { Part } from '../supervisor.ts';
import { answersOk } from './probes.ts';

export const BACKUP_BUCKET = 'fleet-backups';

/** An S3 gateway (versitygw) over a folder, with the bucket for backups in it. */
export function s3Part(options: { program: string; dataDir: string; ports: Ports; secrets: Secrets }): Part {
  const { secrets } = options;
  const folder = join(options.dataDir, 's3');
  const endpoint = `http://127.0.0.1:${options.ports.s3}`;
  return {
    name: 's3',
    address: `127.0.0.1:${options.ports.s3}`,
    command: options.program,
    args: [
      `--port=127.0.0.1:${options.ports.s3}`,
      '--region=us-east-1',
      '--health=/health',
      '--keep-alive',
      '--quiet',
      'posix',
      '--data-integrity-etag',
      folder,
    ],
    env: { ROOT_ACCESS_KEY_ID: secrets.s3AccessKey, ROOT_SECRET_ACCESS_KEY: secrets.s3SecretKey },
    prepare: async () => {
      await mkdir(folder, { recursive: true, mode: 0o700 });
    },
    isReady: () => answersOk(`${endpoint}/health`),
    afterReady: () => createBucket(endpoint, secrets),
  };
}

/** By the API rather than as a folder: only then has the bucket an owner and an access policy. */
async function createBucket(endpoint: string, secrets: Secrets): Promise<void> {
  const client = new S3Client({
    endpoint,
    region: 'us-east-1',
    forcePathStyle: true,
    credentials: { accessKeyId: secrets.s3AccessKey, secretAccessKey: secrets.s3SecretKey },
  });
  try {
    await client.send(new CreateBucketCommand({ Bucket: BACKUP_BUCKET }));
  } catch (error) {
    const exists = error instanceof S3ServiceException && error.name.startsWith('BucketAlready');
    if (!exists) throw error;
  } finally {
    client.destroy();
  }
}
