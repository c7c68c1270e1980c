/**
 * The byte path against what one would use instead: `npm run bench [megabytes] [rounds]`.
 *
 * A Qdrant node serves a stored snapshot, versitygw takes it, everything by loopback. Clients take turns, so that what
 * else the machine does meets all of them alike. `rclone` and `aws` are taken from the PATH; who is missing is left out.
 */
import { execFileSync } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { mkdtemp, rm } from 'node:fs/promises';
import { availableParallelism, cpus, release, tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { QdrantClient } from '../src/clients/qdrant.ts';
import { BackupStore } from '../src/clients/s3.ts';
import { measure, openStage, start, type Measured } from './stage.ts';

const MiB = 1024 * 1024;
const megabytes = Number(process.argv[2] ?? 1024);
const rounds = Number(process.argv[3] ?? 5);
const dataDir = await mkdtemp(join(tmpdir(), 'qdrant-fleet-bench-'));
const stage = await openStage(dataDir, megabytes);
Object.assign(process.env, stage.credentials);
const store = new BackupStore({
  bucket: stage.bucket,
  region: 'us-east-1',
  endpoint: stage.endpoint,
  forcePathStyle: true,
});
const GB = stage.size / 1e9;

const env = {
  AWS_REGION: 'us-east-1',
  AWS_ENDPOINT_URL: stage.endpoint,
  RCLONE_CONFIG: '/dev/null',
  RCLONE_CONFIG_S3_TYPE: 's3',
  RCLONE_CONFIG_S3_PROVIDER: 'Other',
  RCLONE_CONFIG_S3_ENV_AUTH: 'true',
  RCLONE_CONFIG_S3_REGION: 'us-east-1',
  RCLONE_CONFIG_S3_ENDPOINT: stage.endpoint,
  BENCH_URL: stage.url,
  BENCH_ENDPOINT: stage.endpoint,
  BENCH_BUCKET: stage.bucket,
  BENCH_KEY: 'bench/ours',
  // As the other clients come compiled.
  NODE_COMPILE_CACHE: join(dataDir, 'compiled'),
};
const ours = `'${process.execPath}' '${fileURLToPath(import.meta.resolve('./transfer-client.ts'))}'`;
const withParts = (partMiB: number, change: Record<string, string> = {}) => ({
  BENCH_PART_BYTES: String(partMiB * MiB),
  BENCH_BUFFER_BYTES: String(40 * MiB),
  BENCH_LANES: '4',
  BENCH_STREAMS: '1',
  BENCH_SHA256: 'true',
  ...change,
});
const curl = `curl -sSf '${stage.url}'`;
const rclone = '--no-check-dest --s3-no-check-bucket --s3-chunk-size 16M --s3-upload-concurrency 4';

interface Client {
  readonly name: string;
  readonly tool?: string;
  readonly stock: boolean;
  readonly command: string;
  readonly env?: Record<string, string>;
}
const clients: Client[] = [
  { name: 'ours, SHA-256 and CRC32', stock: false, command: ours, env: withParts(8) },
  { name: 'ours, CRC32 only', stock: false, command: ours, env: withParts(8, { BENCH_SHA256: 'false' }) },
  {
    name: 'rclone copyurl',
    tool: 'rclone',
    stock: true,
    command: `rclone copyurl --no-gzip-encoding ${rclone} '${stage.url}' s3:${stage.bucket}/bench/copyurl`,
  },
  {
    name: 'curl \\| rclone rcat',
    tool: 'rclone',
    stock: true,
    command: `${curl} | rclone rcat ${rclone} s3:${stage.bucket}/bench/rcat`,
  },
  {
    name: 'curl \\| aws s3 cp -',
    tool: 'aws',
    stock: true,
    command: `${curl} | aws s3 cp - s3://${stage.bucket}/bench/aws`,
  },
  {
    name: 'floor: curl GET, curl -T',
    stock: false,
    command: `${curl} | curl -sSf -T - --aws-sigv4 aws:amz:us-east-1:s3 --user "$AWS_ACCESS_KEY_ID:$AWS_SECRET_ACCESS_KEY" -H "x-amz-content-sha256: UNSIGNED-PAYLOAD" -H "content-length: ${stage.size}" -H 'transfer-encoding:' '${stage.endpoint}/${stage.bucket}/bench/curl'`,
  },
];

try {
  console.log(`Snapshot: ${GB.toFixed(2)} GB; ${rounds} interleaved rounds, medians; GB = 1e9 bytes.`);
  console.log(
    `Host: ${availableParallelism()} cores, ${cpus()[0]?.model.trim()}, Linux ${release()}, Node ${process.version}.\n`,
  );
  await comparison();
  await memoryTable();
  await crashTable();
  await restoreTable();
} finally {
  store.close();
  await stage.stop();
  await rm(dataDir, { recursive: true, force: true });
}

async function comparison(): Promise<void> {
  const present = clients.filter(({ tool }) => tool === undefined || has(tool));
  const runs = new Map<Client, Measured[]>(present.map((client) => [client, []]));
  for (let round = 0; round < rounds; round += 1) {
    for (const client of present) {
      const measured = await measure(client.command, { ...env, ...client.env });
      runs.get(client)?.push(measured);
      if (client.name.startsWith('ours, SHA') && !measured.output.includes(stage.sha256))
        throw new Error('wrong SHA-256');
      console.error(
        `${round + 1}/${rounds} ${client.name}: ${measured.wall.toFixed(2)} s, ${measured.cpu.toFixed(2)} CPU s`,
      );
      await clear();
    }
  }
  const of = (client: Client, key: 'wall' | 'cpu' | 'peak') => median(runs.get(client)?.map((run) => run[key]) ?? []);
  const anchor = present.find(({ name }) => name === 'rclone copyurl');
  const fastest = Math.min(...present.filter(({ stock }) => stock).map((client) => of(client, 'wall')));
  const rows = present.map((client) => [
    client.name,
    (of(client, 'cpu') / GB).toFixed(2),
    anchor ? (of(client, 'cpu') / of(anchor, 'cpu')).toFixed(2) : '-',
    of(client, 'wall').toFixed(2),
    (fastest / of(client, 'wall')).toFixed(2),
    (of(client, 'peak') / MiB).toFixed(0),
  ]);
  table(['client', 'CPU s/GB', 'CPU ÷ copyurl', 'wall s', 'speed ÷ fastest stock', 'peak RSS MiB'], rows);
}

async function memoryTable(): Promise<void> {
  const rows: string[][] = [];
  for (const [partMiB, streams] of [
    [8, 1],
    [512, 1],
    [8, 8],
    [16, 8],
    [64, 8],
    [512, 8],
  ] as const) {
    const { output } = await measure(ours, { ...env, ...withParts(partMiB, { BENCH_STREAMS: String(streams) }) });
    await clear();
    const { idle, peak } = last(output);
    const mib = (bytes = 0) => (bytes / MiB).toFixed(0);
    rows.push([`${partMiB} MiB`, String(streams), mib(idle), mib(peak), mib((peak ?? 0) - (idle ?? 0))]);
  }
  console.log('\nMemory of one process, buffer budget 40 MiB, 4 lanes a stream:\n');
  table(['part', 'streams', 'idle MiB', 'peak MiB', 'above idle MiB'], rows);
}

async function crashTable(): Promise<void> {
  const rows: string[][] = [];
  for (let round = 0; round < 3; round += 1) {
    const settings = { ...env, ...withParts(8), BENCH_PRINT_PARTS: 'true' };
    const child = start(`exec ${ours}`, settings);
    let begun = 0;
    child.stdout?.on('data', (chunk: Buffer) => {
      for (const line of chunk.toString().trim().split('\n'))
        begun += (JSON.parse(line) as { begun?: number }).begun ?? 0;
      if (begun > stage.size * 0.5) child.kill('SIGKILL');
    });
    await new Promise((resolve) => child.on('close', resolve));
    const { output } = await measure(ours, settings);
    const again = begun + (last(output).sent ?? 0) - stage.size;
    rows.push([(begun / MiB).toFixed(0), ((last(output).sent ?? 0) / MiB).toFixed(0), (again / MiB).toFixed(1), '32']);
    await clear();
  }
  console.log('\nkill -9 in the middle, then a second run; the others begin at byte 0 again:\n');
  table(['begun before MiB', 'sent after MiB', 'sent twice MiB', 'bound: lanes × part MiB'], rows);
}

/** Nodes pull from the store; all that this process does is ask them to. */
async function restoreTable(): Promise<void> {
  const rows: string[][] = [];
  await measure(ours, { ...env, ...withParts(8) });
  const url = await store.presignRead('bench/ours-0', 3600);
  const nodes = (await stage.emptyNodes()).map((address) => new QdrantClient({ url: address }));
  const recover = async (targets: readonly QdrantClient[]): Promise<number> => {
    const path = (target: QdrantClient) => `${target.url}/collections/bench`;
    const collection = { vectors: { size: 4, distance: 'Dot' }, shard_number: 1, on_disk_payload: true };
    const init = { method: 'PUT', headers: { 'content-type': 'application/json' }, body: JSON.stringify(collection) };
    for (const target of targets) {
      const answer = await fetch(path(target), init);
      if (!answer.ok) throw new Error(`PUT ${path(target)}: ${answer.status}`);
    }
    const begun = performance.now();
    await Promise.all(targets.map((target) => target.recoverShard('bench', 0, url, stage.sha256)));
    const seconds = (performance.now() - begun) / 1000;
    for (const target of targets) await fetch(path(target), { method: 'DELETE' });
    return seconds;
  };
  const before = bytesRead();
  const [one, two]: [number[], number[]] = [[], []];
  for (let round = 0; round < 3; round += 1) {
    one.push(await recover(nodes.slice(0, 1)));
    two.push(await recover(nodes));
  }
  const passed = bytesRead() - before;
  await clear();
  rows.push([
    median(one).toFixed(2),
    median(two).toFixed(2),
    (median(two) / median(one)).toFixed(2),
    `${(passed / 1e3).toFixed(0)} kB of ${(9 * GB).toFixed(1)} GB`,
  ]);
  console.log('\nRestore by pull, 3 interleaved rounds, medians:\n');
  table(['one replica s', 'two replicas, two nodes s', 'ratio', 'read by the worker'], rows);
}

/** Bytes that this process has read so far, of files and of sockets. */
function bytesRead(): number {
  return Number(/^rchar: (\d+)/m.exec(readFileSync('/proc/self/io', 'utf8'))?.[1] ?? Number.NaN);
}

function last(output: string): { sent?: number; idle?: number; peak?: number } {
  return JSON.parse(output.trim().split('\n').at(-1) ?? '{}') as object;
}

async function clear(): Promise<void> {
  for await (const { key } of store.list('bench/')) await store.deleteKeys([key]);
}

function has(tool: string): boolean {
  try {
    execFileSync(tool, ['--version'], { stdio: 'ignore' });
    return true;
  } catch {
    console.error(`${tool} is not on the PATH and left out.`);
    return false;
  }
}

function median(values: readonly number[]): number {
  return values.toSorted((a, b) => a - b)[Math.floor(values.length / 2)] ?? Number.NaN;
}

function table(head: readonly string[], rows: readonly (readonly string[])[]): void {
  for (const row of [head, head.map(() => '---'), ...rows]) console.log(`| ${row.join(' | ')} |`);
}
