/**
 * A store whose disk is full: a versitygw of its own over a small file system. For `npm run test:faults`, as root on
 * Linux, where a file system may be mounted; a node's full disk is part of the campaign.
 */
import { spawn, type ChildProcess } from 'node:child_process';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { CreateBucketCommand, S3Client } from '@aws-sdk/client-s3';
import { WorkflowFailedError } from '@temporalio/client';
import { execa } from 'execa';
import { afterAll, beforeAll, describe, expect, inject, test } from 'vitest';
import { ensureTools } from '../../src/local/toolchain/toolchain.ts';
import { exited, Fleet, freePort, largePoints, until } from '../support/fleet.ts';
import { mayMount } from '../support/process-faults.ts';
import { scan } from '../support/scanner.ts';

const ALL = process.env['FLEET_TEST_FAULT_RUNS'] !== undefined && (await mayMount());
const BUCKET = 'small';

describe.runIf(ALL)('a store whose disk is full', () => {
  let folder: string;
  let gateway: ChildProcess;
  let fleet: Fleet;

  beforeAll(async () => {
    folder = await mkdtemp(join(tmpdir(), 'fleet-disk-full-'));
    await execa('mount', ['-t', 'tmpfs', '-o', 'size=9m', 'tmpfs', folder]);
    const env = inject('localEnv');
    const port = await freePort();
    const { versitygw } = await ensureTools({ log: () => undefined });
    gateway = spawn(
      versitygw,
      [`--port=127.0.0.1:${port}`, '--region=us-east-1', '--health=/health', '--quiet', 'posix', folder],
      {
        env: { ROOT_ACCESS_KEY_ID: env['AWS_ACCESS_KEY_ID'], ROOT_SECRET_ACCESS_KEY: env['AWS_SECRET_ACCESS_KEY'] },
        stdio: 'ignore',
      },
    );
    const endpoint = `http://127.0.0.1:${port}`;
    await until('the store answers', async () => (await fetch(`${endpoint}/health`).catch(() => undefined))?.ok);
    fleet = await Fleet.open({
      FLEET_S3_ENDPOINT: endpoint,
      FLEET_S3_NODE_ENDPOINT: endpoint,
      FLEET_BACKUP_BUCKET: BUCKET,
      FLEET_TRANSFER_PART_BYTES: '5242880',
    });
    const client = new S3Client({ endpoint, region: 'us-east-1', forcePathStyle: true });
    await client.send(new CreateBucketCommand({ Bucket: BUCKET }));
    client.destroy();
    await fleet.worker();
    const collections = [{ preset: 'documents', vectorSize: 4, shardNumber: 1, replicationFactor: 1 }];
    await fleet.run('ProvisionCluster', { tenant: fleet.tenant, cluster: 'docs', nodes: 1, collections });
    await (await fleet.access('docs')).load('documents', largePoints(1600));
  }, 180_000);
  afterAll(async () => {
    await fleet.close();
    gateway.kill('SIGTERM');
    await exited(gateway);
    await execa('umount', ['--lazy', folder]);
    await rm(folder, { recursive: true, force: true });
  });

  test('the backup says so and leaves nothing; with room it is made', { timeout: 600_000 }, async () => {
    const { tenant } = fleet;
    const failed = await fleet.run('BackupCluster', { tenant, cluster: 'docs' }).catch((error: unknown) => error);
    expect(failed).toBeInstanceOf(WorkflowFailedError);
    expect((failed as WorkflowFailedError).cause).toMatchObject({ type: 'StoreUnavailable' });
    expect(((failed as WorkflowFailedError).cause as Error).message).not.toContain('Left behind');

    await execa('mount', ['-o', 'remount,size=200m', folder]);
    const { backup } = await fleet.run('BackupCluster', { tenant, cluster: 'docs' });
    const found = await scan({ env: fleet.env, tenant, clusters: [await fleet.access('docs')] });
    expect(found.violations).toEqual([]);
    expect(found.backups['COMMITTED']).toEqual([backup]);
  });
});
