import { spawn } from 'node:child_process';
import { once } from 'node:events';
import {
  chmodSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  readlinkSync,
  realpathSync,
  writeFileSync,
} from 'node:fs';
import { rm } from 'node:fs/promises';
import { createServer, type AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { GetObjectCommand, PutObjectCommand, S3Client } from '@aws-sdk/client-s3';
import { afterEach, describe, expect, inject, test } from 'vitest';
import { tryLock } from '../../src/local/lock.ts';
import { BACKUP_BUCKET, s3Part } from '../../src/local/parts/s3.ts';
import { choosePorts } from '../../src/local/ports.ts';
import { identify } from '../../src/local/process-identity.ts';
import { loadSecrets } from '../../src/local/secrets.ts';
import { AlreadyRunningError, startInfrastructure } from '../../src/local/stack.ts';
import { inheritedEnvironment, Supervisor, type Part, type PartCrashedError } from '../../src/local/supervisor.ts';
import { findOnMachine } from '../../src/local/toolchain/find.ts';
import { RECIPES, type Recipe } from '../../src/local/toolchain/recipes.ts';
import { ensure, ensureTools, MissingToolchainError } from '../../src/local/toolchain/toolchain.ts';

const cleanups: (() => Promise<void>)[] = [];
afterEach(async () => {
  for (const cleanup of cleanups.splice(0).reverse()) await cleanup();
});

function folder(): string {
  const path = realpathSync(mkdtempSync(join(tmpdir(), 'fleet-stack-')));
  cleanups.push(() => rm(path, { recursive: true, force: true }));
  return path;
}

function supervisor(dataDir = folder()): Supervisor {
  const made = new Supervisor(dataDir);
  cleanups.push(() => made.stop());
  return made;
}

/** A part that runs `script` in Node and is ready when it has printed "up". */
function part(name: string, script: string, more: Partial<Part> = {}): Part {
  const args = ['--eval', `${script}; setInterval(() => {}, 1000);`];
  const isReady = (log: () => string) => log().includes('up\n');
  return { name, address: 'nowhere', command: process.execPath, args, isReady, ...more };
}

const runs = (pid: number) => identify(pid) !== undefined;

describe('ports', () => {
  test('a taken port is named, with its holder and the variable that changes it', async () => {
    const server = createServer().listen(0, '127.0.0.1');
    await once(server, 'listening');
    cleanups.push(async () => void server.close());
    const { port } = server.address() as AddressInfo;

    const choice = choosePorts('default', { FLEET_LOCAL_S3_PORT: String(port) });

    await expect(choice).rejects.toThrow(`Port ${port} for S3 is taken`);
    await expect(choice).rejects.toThrow('FLEET_LOCAL_S3_PORT=');
    if (process.platform === 'linux') await expect(choice).rejects.toThrow(`(process ${process.pid})`);
  });

  test('a variable that is not a port is refused by name', async () => {
    await expect(choosePorts('default', { FLEET_API_PORT: 'http' })).rejects.toThrow('FLEET_API_PORT=http');
  });

  test.runIf(process.platform === 'linux')('no part of the stack listens beyond loopback', () => {
    const dataDir = dirname(inject('localEnv').KUBECONFIG ?? '');
    const addresses = readdirSync(join(dataDir, 'run')).flatMap((file) => {
      const { pid } = JSON.parse(readFileSync(join(dataDir, 'run', file), 'utf8')) as { pid: number };
      return listeningAddresses(pid);
    });
    expect(addresses.length).toBeGreaterThan(8);
    // 0100007F: 127.0.0.1 as /proc writes it; the other bytes of a 127.x address differ
    expect(addresses.filter((address) => !/^[0-9A-F]{6}7F$/.test(address))).toEqual([]);
  });
});

describe('supervisor', () => {
  test('a part that ends before it is ready is named, with exit code and the end of its log', async () => {
    const lines = 'for (let i = 1; i <= 30; i++) console.log(`line ${i}.`);';
    const start = supervisor().startAll([part('broken', `${lines} process.exit(3)`)]);
    await expect(start).rejects.toThrow(/^broken ended unexpectedly \(exit code 3\)[^]*line 11\.[^]*line 30\.$/);
    await expect(start).rejects.not.toThrow('line 10.');
  });

  test('a part that ends later is told to the crash listeners', async () => {
    const stack = supervisor();
    const [ready] = await stack.startAll([part('fragile', 'console.log("up")')]);
    const crash = new Promise<PartCrashedError>((resolve) => {
      stack.onCrash(resolve);
    });
    process.kill(ready?.pid ?? 0, 'SIGKILL');
    expect((await crash).message).toMatch(/^fragile ended unexpectedly \(signal SIGKILL\)/);
  });

  test('a program that cannot be started is named', async () => {
    const start = supervisor().startAll([part('missing', '', { command: '/no/such/program' })]);
    await expect(start).rejects.toThrow(/^missing ended unexpectedly \(it could not be started.*ENOENT/);
  });

  test('a part that does not become ready in time shows its log', async () => {
    const start = supervisor().startAll([part('slow', 'console.log("still at it")', { readyWithinMs: 400 })]);
    await expect(start).rejects.toThrow(/^slow did not become ready[^]*still at it/);
  });

  test('parts start after those they need and stop before them', async () => {
    const dataDir = folder();
    const events = join(dataDir, 'events');
    const record = (event: string) => `require('fs').appendFileSync('${events}', '${event} ')`;
    const script = (name: string) =>
      `process.on('SIGTERM', () => { ${record(`-${name}`)}; process.exit(); }); ${record(`+${name}`)}; console.log('up')`;
    const stack = supervisor(dataDir);
    await stack.startAll([
      part('base', script('base')),
      part('middle', script('middle'), { needs: ['base'] }),
      part('top', script('top'), { needs: ['middle', 'base'] }),
    ]);
    await stack.stop();
    expect(readFileSync(events, 'utf8')).toBe('+base +middle +top -top -middle -base ');
  });

  test.runIf(process.platform === 'linux')(
    'stop leaves no process, not even one that hides and ignores SIGTERM',
    async () => {
      const stubborn = "process.on('SIGTERM', () => {}); setInterval(() => {}, 1000)";
      const script = `process.on('SIGTERM', () => {});
      const child = require('child_process').spawn(process.execPath, ['--eval', ${JSON.stringify(stubborn)}], { detached: true });
      console.log('child', child.pid); console.log('up')`;
      const dataDir = folder();
      const stack = supervisor(dataDir);
      const [ready] = await stack.startAll([part('stubborn', script, { stopWithinMs: 200 })]);
      const grandchild = Number(/child (\d+)/.exec(readFileSync(join(dataDir, 'logs/stubborn.log'), 'utf8'))?.[1]);
      expect(runs(grandchild)).toBe(true);

      await stack.stop();

      await expect.poll(() => [ready?.pid ?? 0, grandchild].filter(runs)).toEqual([]);
    },
  );

  test('what a killed supervisor has left is ended by the next one', async () => {
    const dataDir = folder();
    const module = new URL('../../src/local/supervisor.ts', import.meta.url).href;
    const script = `import { Supervisor } from ${JSON.stringify(module)};
      const part = (name) => ({ name, address: '', command: process.execPath, isReady: (log) => log().includes('up'),
        args: ['--eval', 'console.log("up"); setInterval(() => {}, 1000)'] });
      const ready = await new Supervisor(${JSON.stringify(dataDir)}).startAll([part('one'), part('two')]);
      console.log(ready.map(({ pid }) => pid).join(' '));`;
    const victim = spawn(process.execPath, ['--input-type=module', '--eval', script], {
      stdio: ['ignore', 'pipe', 'inherit'],
    });
    const [output] = (await once(victim.stdout, 'data')) as [Buffer];
    victim.kill('SIGKILL');
    await once(victim, 'exit');
    const pids = String(output).trim().split(' ').map(Number);
    expect(pids.filter(runs)).toHaveLength(2);

    const said: string[] = [];
    await supervisor(dataDir).cleanUp((line) => said.push(line));

    await expect.poll(() => pids.filter(runs)).toEqual([]);
    expect(said.join()).toContain('one, two');
  });

  test("the shell's own AWS, Temporal and Kubernetes settings do not reach the parts", () => {
    const shell = { PATH: '/bin', AWS_SESSION_TOKEN: 'x', TEMPORAL_API_KEY: 'x', KUBECONFIG: 'x', PGDATA: 'x' };
    expect(inheritedEnvironment(shell)).toEqual({ PATH: '/bin' });
  });
});

describe('stack', () => {
  test('what is stored survives a restart', async () => {
    const dataDir = folder();
    const [program = ''] = (await ensure([RECIPES.versitygw])).get(RECIPES.versitygw) ?? [];
    const object = { Bucket: BACKUP_BUCKET, Key: 'kept/for-later' };
    const during = async (use: (client: S3Client) => Promise<void>) => {
      const [ports, secrets] = [await choosePorts('free'), loadSecrets(dataDir)];
      const stack = supervisor(dataDir);
      await stack.startAll([s3Part({ program, dataDir, ports, secrets })]);
      const credentials = { accessKeyId: secrets.s3AccessKey, secretAccessKey: secrets.s3SecretKey };
      const endpoint = `http://127.0.0.1:${ports.s3}`;
      await use(new S3Client({ endpoint, region: 'us-east-1', forcePathStyle: true, credentials }));
      await stack.stop();
    };

    await during(async (client) => void (await client.send(new PutObjectCommand({ ...object, Body: 'still here' }))));
    await during(async (client) => {
      const { Body } = await client.send(new GetObjectCommand(object));
      expect(await Body?.transformToString()).toBe('still here');
    });
  });

  test('a second one in the same folder is refused', async () => {
    const dataDir = folder();
    const first = tryLock(join(dataDir, 'stack.lock'));
    await expect(startInfrastructure({ dataDir })).rejects.toThrow(AlreadyRunningError);
    if ('release' in first) first.release();
  });
});

describe('toolchain', () => {
  test('without a toolchain it says what is missing and how to get it', async () => {
    const environment = { PATH: folder(), FLEET_CACHE_DIR: folder() };
    const tools = ensureTools({ environment });
    await expect(tools).rejects.toThrow(MissingToolchainError);
    for (const words of [
      'helm',
      'kube-scheduler',
      'no `go` on PATH',
      'apt-get install golang-go',
      'no `python3` on PATH',
    ]) {
      await expect(tools).rejects.toThrow(words);
    }
  });

  test('a tool is built once, however many ask for it at the same time', async () => {
    const { recipe, builds } = countingRecipe();
    const environment = { ...process.env, FLEET_CACHE_DIR: folder() };
    await Promise.all([1, 2, 3].map(() => ensure([recipe], { environment })));
    expect(builds()).toBe(1);
  });

  test('the lock of a dead installer is taken over, that of a running one is not', async () => {
    const path = join(folder(), 'lock');
    writeFileSync(path, JSON.stringify({ ...identify(process.pid), startTime: 'long ago' }));
    const taken = tryLock(path);
    expect(taken).toHaveProperty('release');
    expect(tryLock(path)).toEqual({ holder: identify(process.pid) });
    if ('release' in taken) taken.release();
    expect(tryLock(path)).toHaveProperty('release');
  });

  test('a failed build shows its output and leaves nothing half done', async () => {
    const { recipe } = countingRecipe('console.error("no space"); process.exit(7)');
    const environment = { ...process.env, FLEET_CACHE_DIR: folder() };
    await expect(ensure([recipe], { environment })).rejects.toThrow(/exit code 7[^]*no space/);
    expect(readdirSync(join(environment.FLEET_CACHE_DIR, 'tools/counter'))).toEqual(['install.log']);
  });

  test.each([
    ['v3.15.2+g1a500d5', true],
    ['v4.0.1+g12500dd', false],
    ['v3.9.0', false],
  ])('helm %s on PATH is used: %s', async (version, used) => {
    const PATH = folder();
    writeFileSync(join(PATH, 'helm'), `#!/bin/sh\necho ${version}\n`);
    chmodSync(join(PATH, 'helm'), 0o755);
    expect(await findOnMachine(RECIPES.helm, { PATH })).toEqual(used ? [join(PATH, 'helm')] : undefined);
  });
});

function countingRecipe(script = ''): { recipe: Recipe; builds: () => number } {
  const count = join(folder(), 'count');
  mkdirSync(dirname(count), { recursive: true });
  writeFileSync(count, '');
  const recipe: Recipe = {
    name: 'counter',
    version: 'v1',
    toolchain: 'go',
    programs: ['counter'],
    onPath: { args: [], rule: 'never', accepts: () => false },
    byHand: 'not at all',
    steps: (into) => {
      const build = `const fs = require('fs'); fs.appendFileSync('${count}', '.'); ${script};
        fs.writeFileSync('${into}/counter', '', { mode: 0o755 })`;
      return [{ label: 'counter', seconds: 1, command: [process.execPath, '--eval', build] }];
    },
  };
  return { recipe, builds: () => readFileSync(count, 'utf8').length };
}

/** The hexadecimal IPv4 or IPv6 addresses that a process listens on. */
function listeningAddresses(pid: number): string[] {
  const sockets = readdirSync(`/proc/${pid}/fd`).map((fd) => {
    try {
      return readlinkSync(`/proc/${pid}/fd/${fd}`);
    } catch {
      return ''; // closed meanwhile
    }
  });
  return ['tcp', 'tcp6']
    .flatMap((table) => readFileSync(`/proc/net/${table}`, 'utf8').split('\n'))
    .map((line) => line.trim().split(/\s+/))
    .filter((fields) => fields[3] === '0A' && sockets.includes(`socket:[${fields[9]}]`))
    .map((fields) => (fields[1] ?? '').split(':')[0] ?? '');
}
