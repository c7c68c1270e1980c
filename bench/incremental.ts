/**
 * Incremental backups against full ones: `npm run bench:incremental [points] [rounds]`.
 *
 * A shard of Qdrant's own engine, 768 dimensions and 1.6 KB of payload a point, is cut before and after changes; each cut
 * is copied as one object and as blocks, over what the first backup holds. Clients take turns.
 */
import { randomBytes } from 'node:crypto';
import { mkdtemp, rm } from 'node:fs/promises';
import { availableParallelism, cpus, release, tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { BackupStore } from '../src/clients/s3.ts';
import { measure, openStage, type Measured } from './stage.ts';

const MiB = 1024 * 1024;
const DIMENSIONS = 768;
const points = Number(process.argv[2] ?? 56_000);
const rounds = Number(process.argv[3] ?? 5);
const dataDir = await mkdtemp(join(tmpdir(), 'qdrant-fleet-bench-'));
const stage = await openStage(dataDir, 1);
Object.assign(process.env, stage.credentials);
const store = new BackupStore({
  bucket: stage.bucket,
  region: 'us-east-1',
  endpoint: stage.endpoint,
  forcePathStyle: true,
});
const base = `${new URL(stage.url).origin}/collections/shard`;

interface Cut {
  readonly url: string;
  readonly size: number;
  readonly sha256: string;
}

interface Outcome {
  readonly sha256: string;
  readonly written: number;
  readonly recipe?: object;
  readonly idle: number;
  readonly peak: number;
}

const script = (url: string) => `'${process.execPath}' '${fileURLToPath(url)}'`;
const client = script(import.meta.resolve('./incremental-client.ts'));
const fullClient = script(import.meta.resolve('./transfer-client.ts'));
const env = { AWS_REGION: 'us-east-1', BENCH_ENDPOINT: stage.endpoint, BENCH_BUCKET: stage.bucket };
const full = (cut: Cut) => ({
  ...{ ...env, BENCH_URL: cut.url, BENCH_KEY: 'bench/full', BENCH_PART_BYTES: String(8 * MiB) },
  ...{ BENCH_BUFFER_BYTES: String(48 * MiB), BENCH_LANES: '4', BENCH_STREAMS: '1', BENCH_SHA256: 'true' },
});
const blocks = (cut: Cut, folder: string, recipe?: object) => ({
  ...{ ...env, BENCH_URL: cut.url, BENCH_FOLDER: folder },
  ...(recipe !== undefined && { BENCH_RECIPE: JSON.stringify(recipe) }),
});

try {
  await call('PUT', '', { vectors: { size: DIMENSIONS, distance: 'Cosine' }, on_disk_payload: true });
  await call('PUT', '/index?wait=true', { field_name: 'document_id', field_schema: 'keyword' });
  await upsert(Array.from({ length: points }, (_, id) => id));
  const first = await snapshot();
  const unchanged = await snapshot();
  const one = new Set<number>();
  while (one.size < points / 100) one.add(Math.floor(Math.random() * points));
  await upsert([...one]);
  const upserted = await snapshot();
  await upsert(Array.from({ length: Math.round(points / 100) }, (_, index) => points + index));
  const added = await snapshot();

  const kept = await run(client, blocks(first, 'kept/'));
  const later = await run(client, blocks(upserted, 'later/', kept.outcome.recipe));
  const rows: { name: string; cut: Cut; command: string; env: Record<string, string> }[] = [
    { name: 'full', cut: upserted, command: fullClient, env: full(upserted) },
    ...(
      [
        ['incremental, the first', first, undefined],
        ['incremental, unchanged', unchanged, kept],
        ['incremental, 1 % of the points upserted, at random', upserted, kept],
        ['incremental, 1 % new points', added, later],
      ] as const
    ).map(([name, cut, before]) => ({
      ...{ name, cut, command: client },
      env: blocks(cut, 'round/', before?.outcome.recipe),
    })),
    {
      name: 'put together again, 1 % upserted',
      cut: upserted,
      command: client,
      env: { ...blocks(upserted, '', later.outcome.recipe), BENCH_MODE: 'read' },
    },
  ];
  const runs = new Map<string, { measured: Measured; outcome: Outcome }[]>();
  for (let round = 1; round <= rounds; round += 1) {
    for (const { name, cut, command, env: settings } of rows) {
      const done = await run(command, settings);
      if (done.outcome.sha256 !== cut.sha256) throw new Error(`${name}: wrong SHA-256`);
      runs.set(name, [...(runs.get(name) ?? []), done]);
      console.error(`${round}/${rounds} ${name}: ${done.measured.wall.toFixed(2)} s`);
      for await (const { key } of store.list('bench/')) {
        if (/^bench\/(?:full|round)/.test(key)) await store.deleteKeys([key]);
      }
    }
  }
  console.log(`Shard of ${points} points, ${(first.size / 1e6).toFixed(0)} MB; ${rounds} interleaved rounds, medians.`);
  console.log(
    `Host: ${availableParallelism()} cores, ${cpus()[0]?.model.trim()}, Linux ${release()}, Node ${process.version}.\n`,
  );
  const of = (name: string, value: (run: { measured: Measured; outcome: Outcome }) => number) =>
    (runs.get(name) ?? []).map(value).toSorted((a, b) => a - b)[Math.floor(rounds / 2)] ?? Number.NaN;
  const baseline = { cpu: of('full', cpuOf), wall: of('full', wallOf) };
  const table = rows.map(({ name, cut }) => {
    const written = name === 'full' ? cut.size : of(name, ({ outcome }) => outcome.written);
    return [
      name,
      (written / 1e6).toFixed(2),
      `${((written / cut.size) * 100).toFixed(2)} %`,
      (cut.size / 1e6 / of(name, wallOf)).toFixed(0),
      (of(name, cpuOf) / (cut.size / 1e9)).toFixed(2),
      (of(name, cpuOf) / baseline.cpu).toFixed(2),
      (of(name, ({ outcome }) => outcome.peak - outcome.idle) / MiB).toFixed(0),
    ];
  });
  const head = ['backup of the shard', 'written MB', 'share', 'MB/s', 'CPU s/GB', 'CPU ÷ full', 'MiB above idle'];
  for (const row of [head, head.map(() => '---'), ...table]) console.log(`| ${row.join(' | ')} |`);
} finally {
  store.close();
  await stage.stop();
  await rm(dataDir, { recursive: true, force: true });
}

function cpuOf({ measured }: { measured: Measured }): number {
  return measured.cpu;
}

function wallOf({ measured }: { measured: Measured }): number {
  return measured.wall;
}

async function run(command: string, settings: Record<string, string>) {
  const measured = await measure(command, settings);
  return { measured, outcome: JSON.parse(measured.output.trim().split('\n').at(-1) ?? '{}') as Outcome };
}

async function upsert(ids: readonly number[]): Promise<void> {
  for (let at = 0; at < ids.length; at += 500) {
    const batch = ids.slice(at, at + 500).map((id) => ({
      id,
      vector: Array.from({ length: DIMENSIONS }, () => Math.round((Math.random() - 0.5) * 1e4) / 1e4),
      payload: { document_id: `d${id % 500}`, text: randomBytes(1200).toString('base64') },
    }));
    await call('PUT', '/points?wait=true', { points: batch });
  }
}

async function snapshot(): Promise<Cut> {
  // Names are told apart by the second.
  await new Promise((resolve) => setTimeout(resolve, 1100));
  const made = (await call('POST', '/shards/0/snapshots?wait=true')) as {
    name: string;
    size: number;
    checksum: string;
  };
  return { url: `${base}/shards/0/snapshots/${made.name}`, size: made.size, sha256: made.checksum };
}

async function call(method: string, path: string, body?: object): Promise<unknown> {
  const init = { method, headers: { 'content-type': 'application/json' } };
  const answer = await fetch(`${base}${path}`, { ...init, ...(body && { body: JSON.stringify(body) }) });
  if (!answer.ok) throw new Error(`${method} ${path}: ${answer.status} ${await answer.text()}`);
  return ((await answer.json()) as { result: unknown }).result;
}
