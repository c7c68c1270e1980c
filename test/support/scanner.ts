/**
 * Looks at the bucket and the nodes from outside, after the format's description and by other code than the fleet's:
 * is every committed backup complete to the last bit, and is nothing left lying around?
 */
import { createHash } from 'node:crypto';
import { readdirSync, readFileSync, readlinkSync } from 'node:fs';
import { GetObjectCommand, ListMultipartUploadsCommand, ListObjectsV2Command, S3Client } from '@aws-sdk/client-s3';
import pg from 'pg';
import type { ClusterAccess } from '../../src/local/demo/cluster-access.ts';
import { putTogether } from './scan-recipe.ts';

export interface ScanScope {
  /** Endpoint, bucket, region as a worker is configured by them. */
  readonly env: Readonly<Record<string, string>>;
  readonly tenant: string;
  /** Clusters whose nodes are looked at. */
  readonly clusters: readonly ClusterAccess[];
  /** Backup ids of operations that still run, or that said themselves what they had to leave behind. */
  readonly excused?: ReadonlySet<string>;
  /** Process ids of workers that have nothing to do now. */
  readonly workers?: readonly number[];
}

export interface ScanResult {
  readonly violations: readonly string[];
  /** Backup ids by the state of their record; `none` where there is no record. */
  readonly backups: Readonly<Record<string, readonly string[]>>;
  /** Objects that were read and hashed, and their bytes. */
  readonly objects: number;
  readonly bytes: number;
}

interface Manifest {
  readonly backup?: unknown;
  readonly attempt?: unknown;
  readonly collections?: readonly { name: string; shards: readonly ManifestShard[] }[];
}

interface ManifestShard {
  readonly shard: number;
  readonly key: string;
  readonly size: number;
  readonly sha256: string;
  readonly incremental?: { readonly recipeBytes: number; readonly recipeSha256: string; readonly written: number };
  readonly sample?: { readonly key: string; readonly sha256: string };
}

interface Commit {
  readonly state?: string;
  readonly backup?: string;
  readonly attempt?: string;
  readonly manifest?: { readonly sha256: string; readonly size: number };
  readonly totals?: { readonly shards: number; readonly bytes: number; readonly written?: number };
  readonly references?: readonly string[];
}

export async function scan(scope: ScanScope): Promise<ScanResult> {
  const scanner = new Scanner(scope);
  try {
    return await scanner.run();
  } finally {
    scanner.close();
  }
}

class Scanner {
  readonly #scope: ScanScope;
  readonly #s3: S3Client;
  readonly #bucket: string;
  readonly #violations: string[] = [];
  readonly #backups: Record<string, string[]> = {};
  /** `<kind> <backup id>` of what operations have left to the next sweep. */
  #chores: ReadonlySet<string> = new Set();
  #objects = 0;
  #bytes = 0;

  constructor(scope: ScanScope) {
    const { env } = scope;
    this.#scope = scope;
    this.#bucket = env['FLEET_BACKUP_BUCKET'] ?? '';
    this.#s3 = new S3Client({
      endpoint: env['FLEET_S3_ENDPOINT'] ?? '',
      region: env['AWS_REGION'] ?? 'us-east-1',
      forcePathStyle: true,
      credentials: {
        accessKeyId: env['AWS_ACCESS_KEY_ID'] ?? '',
        secretAccessKey: env['AWS_SECRET_ACCESS_KEY'] ?? '',
      },
    });
  }

  close(): void {
    this.#s3.destroy();
  }

  async run(): Promise<ScanResult> {
    this.#chores = await this.#choresLeft();
    const sizes = await this.#list(`${this.#scope.tenant}/`);
    const roots = Map.groupBy(sizes.keys(), (key) => key.split('/').slice(0, 3).join('/'));
    for (const [root, keys] of roots) await this.#backup(root, new Set(keys), sizes);
    await this.#uploads();
    await this.#nodes();
    await this.#catalogue();
    for (const pid of this.#scope.workers ?? []) for (const what of servedConnections(pid)) this.#bad(what);
    return {
      violations: this.#violations,
      backups: this.#backups,
      objects: this.#objects,
      bytes: this.#bytes,
    };
  }

  /** `<tenant>/<cluster>/<backup id>/` */
  async #backup(root: string, keys: ReadonlySet<string>, sizes: ReadonlyMap<string, number>): Promise<void> {
    const id = root.split('/')[2] ?? '';
    const excused = this.#scope.excused?.has(id) === true;
    const below = (folder: string) => [...keys].filter((key) => key.startsWith(`${root}/${folder}/`));
    const known = new Set(['intent.json', 'manifest.json', 'commit.json'].map((name) => `${root}/${name}`));
    for (const key of keys) {
      if (!known.has(key) && !/\/(?:data|leases|attest)\//.test(key.slice(root.length)))
        this.#bad(`stray object ${key}`);
    }
    if (!keys.has(`${root}/intent.json`)) this.#bad(`${root} has no intent`);
    const noted = this.#chores.has(`backup-lease ${id}`);
    if (!excused && !noted) for (const key of below('leases')) this.#bad(`left lease ${key}`);

    const commit = keys.has(`${root}/commit.json`) ? await this.#json<Commit>(`${root}/commit.json`) : undefined;
    const state = commit?.state ?? 'none';
    (this.#backups[state] ??= []).push(id);
    if (commit !== undefined && commit.backup !== id) this.#bad(`${root}: the record is of backup ${commit.backup}`);
    switch (state) {
      case 'COMMITTED':
      case 'DELETING':
        return this.#complete(root, commit ?? {}, keys, sizes);
      case 'DELETED':
      case 'ABORTED':
        for (const key of below('data')) this.#bad(`data of a backup that is ${state}: ${key}`);
        return;
      case 'none':
      case 'PURGING':
        if (!excused && below('data').length > 0)
          this.#bad(`${root} is ${state} and holds ${below('data').length} objects`);
        return;
      default:
        this.#bad(`${root} is in the unknown state ${state}`);
    }
  }

  /** Everything that the manifest names is there, bit by bit, and nothing else. */
  async #complete(
    root: string,
    commit: Commit,
    keys: ReadonlySet<string>,
    sizes: ReadonlyMap<string, number>,
  ): Promise<void> {
    const found = await this.#get(`${root}/manifest.json`);
    if (found === undefined) return this.#bad(`${root} is ${commit.state} without a manifest`);
    if (sha256(found) !== commit.manifest?.sha256) this.#bad(`${root}/manifest.json is not the one of the record`);
    if (found.length !== commit.manifest?.size) this.#bad(`${root}/manifest.json has ${found.length} bytes`);
    const manifest = JSON.parse(found.toString()) as Manifest;
    const id = root.split('/')[2];
    if (manifest.backup !== id) this.#bad(`${root}: the manifest is of backup ${String(manifest.backup)}`);
    if (manifest.attempt !== commit.attempt) this.#bad(`${root}: manifest and record are of different runs`);
    const data = `${root}/data/${commit.attempt}/`;
    const expected = new Set([`${data}plan.json`]);
    if (commit.references !== undefined) expected.add(`${data}bases.json`);
    const referred = new Set<string>();
    const shards = (manifest.collections ?? []).flatMap((collection) =>
      collection.shards.map((shard) => ({ ...shard, name: `${collection.name}/${shard.shard}` })),
    );
    if (new Set(shards.map(({ name }) => name)).size !== shards.length) this.#bad(`${root}: a shard is there twice`);
    if (new Set(shards.map(({ key }) => key)).size !== shards.length) this.#bad(`${root}: two shards share an object`);
    let bytes = 0;
    for (const { name, key, size, sha256: wanted, incremental, sample } of shards) {
      if (sample !== undefined) {
        expected.add(sample.key);
        if ((await this.#hash(sample.key)) !== sample.sha256) this.#bad(`${sample.key} is not the one of the manifest`);
      }
      expected.add(key);
      bytes += size;
      if (!key.startsWith(data)) this.#bad(`${name} of ${root} lies outside of its run: ${key}`);
      if (incremental !== undefined) {
        const packs = await this.#incremental(key, { size, sha256: wanted, ...incremental }, sizes);
        for (const pack of packs) (pack.startsWith(data) ? expected : referred).add(pack);
        continue;
      }
      if (sizes.get(key) !== size) this.#bad(`${key} has ${sizes.get(key)} bytes, the manifest says ${size}`);
      const digest = await this.#hash(key);
      if (digest !== wanted) this.#bad(`${key} hashes to ${digest}, the manifest says ${wanted}`);
    }
    const others = [...new Set([...referred].map((pack) => pack.split('/')[2] ?? ''))].sort();
    if (others.join() !== [...(commit.references ?? [])].sort().join()) {
      this.#bad(`${root} refers to ${others.join()}, its record says ${commit.references?.join()}`);
    }
    if (commit.totals?.shards !== shards.length)
      this.#bad(`${root}: the record counts ${commit.totals?.shards} shards`);
    if (commit.totals?.bytes !== bytes) this.#bad(`${root}: the record counts ${commit.totals?.bytes} bytes`);
    for (const key of keys) {
      const isList = key.endsWith('.json') && (key.startsWith(`${data}lanes/`) || key.startsWith(`${data}copied/`));
      if (key.startsWith(`${root}/data/`) && !expected.has(key) && !isList) this.#bad(`data of no manifest: ${key}`);
    }
  }

  /** @returns keys of the packs that the shard needs */
  async #incremental(
    key: string,
    shard: { size: number; sha256: string; recipeBytes: number; recipeSha256: string },
    sizes: ReadonlyMap<string, number>,
  ): Promise<string[]> {
    const recipe = await this.#get(key);
    if (recipe?.length !== shard.recipeBytes || sha256(recipe) !== shard.recipeSha256) {
      this.#bad(`${key} is not the recipe of the manifest`);
      return [];
    }
    const root = `${key.split('/').slice(0, 2).join('/')}/`;
    const found = await putTogether(recipe, async (path) => {
      const pack = sizes.has(`${root}${path}`) ? await this.#get(`${root}${path}`) : undefined;
      this.#bytes += pack?.length ?? 0;
      return pack;
    });
    this.#objects += 1 + found.packs.size;
    for (const problem of found.problems) this.#bad(`${key}: ${problem}`);
    if (found.sha256 !== shard.sha256 || found.size !== shard.size) {
      this.#bad(
        `${key} gives ${found.size} bytes of ${found.sha256}, the manifest says ${shard.size} of ${shard.sha256}`,
      );
    }
    return [...found.packs.keys()].map((path) => `${root}${path}`);
  }

  async #uploads(): Promise<void> {
    const { Uploads = [], IsTruncated } = await this.#s3.send(
      new ListMultipartUploadsCommand({ Bucket: this.#bucket, Prefix: `${this.#scope.tenant}/` }),
    );
    if (IsTruncated === true) this.#bad('more than one page of open uploads');
    for (const { Key = '', UploadId } of Uploads) {
      if (!Key.startsWith(`${this.#scope.tenant}/`)) continue;
      const excused = this.#scope.excused?.has(Key.split('/')[2] ?? '') === true;
      if (!excused) this.#bad(`open upload ${UploadId} of ${Key}`);
    }
  }

  /** Nobody but the fleet makes shard snapshots here. */
  async #nodes(): Promise<void> {
    for (const cluster of this.#scope.clusters) {
      const { collections } = await cluster.call<{ collections: { name: string }[] }>('GET', '/collections');
      for (const { name } of collections) {
        for (const snapshot of await cluster.nodeSnapshots(name)) this.#bad(`snapshot left on a node: ${snapshot}`);
      }
    }
  }

  /** Nobody holds a cluster any more, and what is listed is what there is. */
  async #catalogue(): Promise<void> {
    const { env, tenant } = this.#scope;
    const database = new pg.Client({ connectionString: env['DATABASE_URL'] });
    await database.connect();
    try {
      const leases = await database.query<{ cluster: string; holder: string }>(
        'select cluster, holder from leases where tenant = $1',
        [tenant],
      );
      for (const { cluster, holder } of leases.rows) this.#bad(`${holder} left its lease on cluster ${cluster}`);
      const listed = await database.query<{ backup: string }>(
        "select backup from backups where tenant = $1 and state = 'COMMITTED'",
        [tenant],
      );
      const found = new Set(this.#backups['COMMITTED'] ?? []);
      for (const { backup } of listed.rows)
        if (!found.delete(backup)) this.#bad(`${backup} is listed and not committed`);
      for (const backup of found)
        if (!this.#chores.has(`backup-index ${backup}`)) this.#bad(`${backup} is committed and not listed`);
    } finally {
      await database.end();
    }
  }

  async #choresLeft(): Promise<Set<string>> {
    const { env, tenant } = this.#scope;
    const database = new pg.Client({ connectionString: env['DATABASE_URL'] });
    await database.connect();
    try {
      const { rows } = await database.query<{ kind: string; backup: string }>(
        "select kind, what->>'backup' as backup from chores where tenant = $1",
        [tenant],
      );
      return new Set(rows.map(({ kind, backup }) => `${kind} ${backup}`));
    } finally {
      await database.end();
    }
  }

  async #list(prefix: string): Promise<Map<string, number>> {
    const sizes = new Map<string, number>();
    let token: string | undefined;
    do {
      const page = await this.#s3.send(
        new ListObjectsV2Command({
          Bucket: this.#bucket,
          Prefix: prefix,
          ...(token !== undefined && { ContinuationToken: token }),
        }),
      );
      for (const { Key = '', Size = 0 } of page.Contents ?? []) sizes.set(Key, Size);
      token = page.NextContinuationToken;
    } while (token !== undefined);
    return sizes;
  }

  async #json<T>(key: string): Promise<T> {
    return JSON.parse((await this.#get(key))?.toString() ?? '{}') as T;
  }

  async #get(key: string): Promise<Buffer | undefined> {
    const chunks: Buffer[] = [];
    const body = await this.#open(key);
    if (body === undefined) return undefined;
    for await (const chunk of body) chunks.push(chunk);
    return Buffer.concat(chunks);
  }

  async #hash(key: string): Promise<string | undefined> {
    const hash = createHash('sha256');
    const body = await this.#open(key);
    if (body === undefined) return undefined;
    for await (const chunk of body) {
      hash.update(chunk);
      this.#bytes += chunk.length;
    }
    this.#objects += 1;
    return hash.digest('hex');
  }

  async #open(key: string): Promise<AsyncIterable<Buffer> | undefined> {
    try {
      const { Body } = await this.#s3.send(new GetObjectCommand({ Bucket: this.#bucket, Key: key }));
      return Body as unknown as AsyncIterable<Buffer>;
    } catch (error) {
      if (error instanceof Error && error.name === 'NoSuchKey') return undefined;
      throw error;
    }
  }

  #bad(what: string): void {
    this.#violations.push(what);
  }
}

function sha256(bytes: Buffer): string {
  return createHash('sha256').update(bytes).digest('hex');
}

/** What is still connected to a port that the process listens on, and more than two such ports: health and relay. */
function servedConnections(pid: number): string[] {
  if (process.platform !== 'linux') return [];
  const own = new Set(
    readdirSync(`/proc/${pid}/fd`).flatMap((fd) => {
      try {
        return [/^socket:\[(\d+)\]$/.exec(readlinkSync(`/proc/${pid}/fd/${fd}`))?.[1] ?? ''];
      } catch {
        // Closed since it was listed.
        return [];
      }
    }),
  );
  const sockets = readFileSync(`/proc/${pid}/net/tcp`, 'utf8')
    .split('\n')
    .slice(1)
    .map((line) => line.trim().split(/\s+/))
    .filter((fields) => own.has(fields[9] ?? 'none'))
    .map(([, local = '', , state = '']) => ({ port: Number.parseInt(local.split(':')[1] ?? '', 16), state }));
  const listening = new Set(sockets.filter(({ state }) => state === '0A').map(({ port }) => port));
  const served = sockets.filter(({ port, state }) => state === '01' && listening.has(port));
  return [
    ...(listening.size > 2 ? [`worker ${pid} listens on ${[...listening].join(', ')}`] : []),
    ...served.map(({ port }) => `somebody is still connected to port ${port} of worker ${pid}`),
  ];
}
