/** The image and the compose topology, as far as they can be proven without a container engine. */
import { execFile } from 'node:child_process';
import { existsSync, mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { createServer } from 'node:http';
import { builtinModules } from 'node:module';
import type { AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import { dirname, join, normalize } from 'node:path';
import { promisify } from 'node:util';
import { DefaultLogger, Runtime, Worker } from '@temporalio/worker';
import { describe, expect, test } from 'vitest';
import { parse } from 'yaml';
import { CONFIG_VARIABLES, loadApiConfig, loadConfig } from '../src/config.ts';
import { SEARCH_ATTRIBUTES } from '../src/domain/search-attributes.ts';
import { RECIPES } from '../src/local/toolchain/recipes.ts';

const ROOT = join(import.meta.dirname, '..');
const run = promisify(execFile);
const read = (path: string) => readFileSync(join(ROOT, path), 'utf8');

interface Service {
  readonly image: string;
  readonly build?: string;
  readonly command?: readonly string[];
  readonly environment?: Readonly<Record<string, string>>;
  readonly healthcheck?: { readonly disable?: boolean; readonly test?: readonly string[] };
  readonly depends_on?: Readonly<Record<string, { readonly condition: string }>>;
  readonly networks?: { readonly default: { readonly ipv4_address: string } };
  readonly ports?: readonly string[];
  readonly volumes?: readonly string[];
  readonly [key: string]: unknown;
}

/** What a user fills in. */
const SECRETS: Readonly<Record<string, string>> = {
  POSTGRES_PASSWORD: 'p4ssw0rd',
  S3_ACCESS_KEY: 'access',
  S3_SECRET_KEY: 'secret',
  BACKUP_MAC_KEY: 'MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=',
  FLEET_API_TOKENS: 'acme=0123456789abcdef01234567',
};
/** What the processes read besides the configuration: Temporal's and AWS's own libraries, Node and Helm. */
const FOREIGN = [
  ...['TEMPORAL_ADDRESS', 'TEMPORAL_NAMESPACE', 'AWS_ACCESS_KEY_ID', 'AWS_SECRET_ACCESS_KEY'],
  ...['NODE_ENV', 'PATH', 'HOME', 'HELM_CACHE_HOME', 'HELM_CONFIG_HOME', 'HELM_DATA_HOME'],
];
const VARIABLE = /(?<!\$)\$\{(\w+)(?::([?-])([^}]*))?\}/g;

const composeText = read('docker-compose.yml');
const compose = parse(
  composeText.replace(VARIABLE, (_all, name: string, kind?: string, rest?: string) => {
    return SECRETS[name] ?? (kind === '-' ? (rest ?? '') : '');
  }),
  { merge: true },
) as { services: Record<string, Service>; volumes: object; configs: object };
const services = Object.entries(compose.services);
const dockerfile = read('Dockerfile')
  .replace(/^#.*\n/gm, '')
  .replace(/\\\n\s*/g, ' ');
const manifest = JSON.parse(read('package.json')) as { version: string; dependencies: Record<string, string> };

/** An image without its digest, which `supply-chain.test.ts` looks at. */
function tagOf(image = ''): string {
  return image.replace(/@sha256:[0-9a-f]{64}$/, '');
}

describe('the compose file', () => {
  const isJob = (name: string) =>
    services.some(([, { depends_on }]) => depends_on?.[name]?.condition === 'service_completed_successfully');
  const hasHealthcheck = ({ healthcheck, build }: Service) =>
    healthcheck === undefined ? build !== undefined : healthcheck.disable !== true;

  test.each(services)('%s: pinned, checked, bound to loopback, privileged only if it is k3s', (name, service) => {
    expect(tagOf(service.image)).toMatch(/^[a-z0-9./-]+:v?\d+\.\d+(\.\d+)?[\w.-]*$/);
    expect(hasHealthcheck(service)).toBe(!isJob(name));
    expect(service['restart']).toBe(isJob(name) ? 'on-failure:5' : 'unless-stopped');
    expect(service['privileged'] ?? false).toBe(name === 'k3s');
    for (const port of service.ports ?? []) expect(port).toMatch(/^127\.0\.0\.1:\d+:\d+$/);
    for (const volume of service.volumes ?? []) expect(Object.keys(compose.volumes)).toContain(volume.split(':')[0]);
    for (const [target, { condition }] of Object.entries(service.depends_on ?? {})) {
      const other = compose.services[target];
      if (other === undefined) throw new Error(`${name} depends on ${target}, which is not a service`);
      expect([target, condition]).toEqual([
        target,
        isJob(target) ? 'service_completed_successfully' : 'service_healthy',
      ]);
    }
  });

  test('runs our processes on a read-only root, without capabilities', () => {
    for (const name of ['api', 'worker', 's3-bucket']) {
      expect(compose.services[name]).toMatchObject({
        image: `qdrant-fleet:${manifest.version}`,
        read_only: true,
        tmpfs: [expect.stringMatching(/^\/tmp:/)],
        cap_drop: ['ALL'],
        security_opt: ['no-new-privileges:true'],
      });
    }
  });

  test('asks for exactly the secrets that .env.example lists, and holds none', () => {
    const uses = [...composeText.matchAll(VARIABLE)];
    const required = new Set(uses.filter(([, , kind]) => kind === '?').map(([, name = '']) => name));
    expect([...required].toSorted()).toEqual(Object.keys(SECRETS).toSorted());
    const example = read('.env.example')
      .split('\n')
      .filter((line) => line !== '' && !line.startsWith('#'));
    expect(example.toSorted()).toEqual([...required].map((name) => `${name}=`).toSorted());
    for (const [, name, kind] of uses) expect([name, kind]).not.toEqual([name, undefined]);
    for (const [name, { environment }] of services) {
      for (const key of Object.keys(environment ?? {}).filter((key) =>
        /PASSWORD|PWD|SECRET|ACCESS_KEY|TOKEN/.test(key),
      )) {
        expect(Object.values(SECRETS), `${name}: ${key}`).toContain(environment?.[key]);
      }
    }
  });

  test('gives the API and the worker a configuration that they accept, and no variable that they do not know', () => {
    const known = new Set([...CONFIG_VARIABLES, ...FOREIGN]);
    const unknown = ['api', 'worker', 's3-bucket'].flatMap((name) => Object.keys(environmentOf(name)));
    expect(unknown.filter((name) => !known.has(name))).toEqual([]);

    const worker = loadConfig(environmentOf('worker'));
    expect(worker).toMatchObject({
      FLEET_WORKFLOW_BUNDLE: '/app/dist/workflows.js',
      FLEET_QDRANT_RESOLVER: 'pod-ip',
      FLEET_S3_FORCE_PATH_STYLE: true,
    });
    const api = loadApiConfig(environmentOf('api'));
    expect(api.FLEET_API_HOST).toBe('0.0.0.0');
    expect(api.DATABASE_URL).toBe(worker.DATABASE_URL);
    expect(compose.services['api']?.ports).toEqual([`127.0.0.1:8080:${api.FLEET_API_PORT}`]);
  });

  test('lets the worker reach the pods, and the pods the backups', () => {
    const { worker, k3s, s3 } = compose.services;
    expect(worker?.['network_mode']).toBe('service:k3s');
    expect(worker?.networks).toBeUndefined();
    const kubeconfig = environmentOf('worker')['KUBECONFIG'];
    expect(k3s?.command).toContain(`--write-kubeconfig=${kubeconfig}`);
    expect(k3s?.volumes).toContain('kubeconfig:/kubeconfig');
    expect(worker?.volumes).toContain('kubeconfig:/kubeconfig:ro');
    const address = s3?.networks?.default.ipv4_address;
    expect(environmentOf('worker')['FLEET_S3_NODE_ENDPOINT']).toBe(`http://${address}:7070`);
    expect(environmentOf('s3-bucket')['FLEET_BACKUP_BUCKET']).toBe(environmentOf('worker')['FLEET_BACKUP_BUCKET']);
  });

  test('registers the search attributes of the workflows', () => {
    const script = compose.services['temporal-namespace']?.command?.join('\n') ?? '';
    const created = [...script.matchAll(/--name (\w+) --type (\w+)/g)].map(([, name, type]) => [name, type]);
    expect(Object.fromEntries(created)).toEqual(SEARCH_ATTRIBUTES);
  });

  test('runs the versions that the local stack runs', () => {
    expect(tagOf(compose.services['s3']?.image)).toBe(`versity/versitygw:${RECIPES.versitygw.version}`);
    expect(tagOf(compose.services['k3s']?.image)).toMatch(
      new RegExp(`^rancher/k3s:${RECIPES.kubernetes.version}-k3s\\d+$`),
    );
    expect(dockerfile).toContain(`helm.sh/helm/v3/cmd/helm@${RECIPES.helm.version}\n`);
  });

  test.each(['temporal-schema', 'temporal-namespace'])('%s: its script is a shell script', async (name) => {
    const script = compose.services[name]?.command?.[0]?.replaceAll('$$', '$') ?? '';
    await expect(run('/bin/sh', ['-n', '-c', script])).resolves.toMatchObject({ stderr: '' });
  });
});

describe('the image', () => {
  test('is built from pinned bases, and from the Node that the project names', () => {
    const bases = [...dockerfile.matchAll(/^FROM (\S+)/gm)].map(([, base]) => base ?? '');
    expect(bases).toHaveLength(3);
    for (const base of bases) expect(base).toMatch(/^(golang|node):\d+\.\d+\.\d+-\w+/);
    expect(tagOf(bases.at(-1))).toBe(`node:${read('.nvmrc').trim()}-trixie-slim`);
    expect(dockerfile).toMatch(/^USER 1000:1000$/m);
    expect(dockerfile).toContain(`ARG VERSION=${manifest.version}\n`);
  });

  test('holds every file and package that the two processes import', () => {
    const { files, packages } = reach(['src/worker.ts', 'src/server.ts', 'src/bundle-workflows.ts']);
    expect(files).toContain('activities/index.ts');
    expect(files).toContain('workflows/index.ts');
    const copied = [...dockerfile.matchAll(/^COPY (?!--from)(.+) \S+$/gm)].flatMap(
      ([, sources]) => sources?.split(' ') ?? [],
    );
    for (const source of copied) expect(existsSync(join(ROOT, source)), source).toBe(true);
    const isCopied = (file: string) => copied.some((source) => file === source || file.startsWith(`${source}/`));
    expect([...files, ...copied].filter((file) => !isCopied(file) || isIgnored(file))).toEqual([]);
    expect(packages.filter((name) => !(name in manifest.dependencies))).toEqual([]);
  });

  test('bundles the workflows into a file that a worker loads', async () => {
    expect(dockerfile).toContain('RUN node src/bundle-workflows.ts /app/dist/workflows.js\n');
    const folder = mkdtempSync(join(tmpdir(), 'qdrant-fleet-bundle-'));
    try {
      const codePath = join(folder, 'dist/workflows.js');
      await run(process.execPath, [join(ROOT, 'src/bundle-workflows.ts'), codePath], { cwd: folder });
      Runtime.install({ logger: new DefaultLogger('ERROR') });
      // A worker that replays nothing: it reads the bundle and starts up on it, and needs no server.
      for await (const _ of Worker.runReplayHistories({ workflowBundle: { codePath } }, [])) expect.unreachable();
    } finally {
      rmSync(folder, { recursive: true });
    }
  });

  test.each([
    ['healthy', 200, 0],
    ['unhealthy', 503, 1],
  ])('is %s when /readyz answers %i', async (_name, status, exitCode) => {
    const [, command = '[]'] = /^HEALTHCHECK .*? CMD (\[.*\])$/m.exec(dockerfile) ?? [];
    const [program, ...args] = JSON.parse(command) as string[];
    expect(program).toBe('node');
    const paths: (string | undefined)[] = [];
    const server = createServer((request, response) => {
      paths.push(request.url);
      response.writeHead(status).end();
    }).listen(0, '127.0.0.1');
    await new Promise((listening) => server.once('listening', listening));
    const { port } = server.address() as AddressInfo;
    // Port 1 of loopback: the other of the two processes, which does not run in this container.
    const env = { ...process.env, FLEET_API_PORT: '1', FLEET_WORKER_HEALTH_PORT: String(port) };
    const code = await run(process.execPath, args, { env }).then(
      () => 0,
      (error: { code: number }) => error.code,
    );
    server.close();
    expect({ code, paths }).toEqual({ code: exitCode, paths: ['/readyz'] });
  });
});

/** What a process of the image finds in its environment: the image's own variables, and over them the service's. */
function environmentOf(name: string): Record<string, string> {
  const [, image = ''] =
    dockerfile
      .split(/^FROM /m)
      .at(-1)
      ?.match(/^ENV (.+)$/m) ?? [];
  const ofImage = image.split(/\s+/).map((pair) => pair.split('=') as [string, string]);
  return { ...Object.fromEntries(ofImage), ...compose.services[name]?.environment };
}

/** Whether .dockerignore keeps a file out. It starts with `*`; of the lines that match, the last one counts. */
function isIgnored(file: string): boolean {
  let ignored = false;
  for (const line of read('.dockerignore').split('\n')) {
    if (line === '' || line.startsWith('#')) continue;
    const path = line.replace(/^!/, '');
    if (path === '*' || file === path || file.startsWith(`${path}/`)) ignored = !line.startsWith('!');
  }
  return ignored;
}

/** Our files that are loaded when `entries` are, and the packages that those name. Type imports are erased. */
function reach(entries: readonly string[]): { files: string[]; packages: string[] } {
  const files = new Set<string>();
  const packages = new Set<string>();
  const visit = (file: string): void => {
    if (files.has(file)) return;
    files.add(file);
    if (!file.endsWith('.ts')) return;
    for (const specifier of specifiersIn(read(file))) {
      if (specifier.startsWith('.')) visit(normalize(join(dirname(file), specifier)));
      else if (!specifier.startsWith('node:') && !builtinModules.includes(specifier))
        packages.add(packageOf(specifier));
    }
  };
  for (const entry of entries) visit(entry);
  return { files: [...files], packages: [...packages] };
}

function specifiersIn(source: string): string[] {
  const patterns = [
    /^(?:import|export) (?!type )[^;']*?from '([^']+)'/gm,
    /^import '([^']+)'/gm,
    /\b(?:import|require|require\.resolve)\('([^']+)'\)/g,
    /new URL\('([^']+)', import\.meta\.url\)/g,
  ];
  return patterns.flatMap((pattern) => [...source.matchAll(pattern)].map(([, specifier]) => specifier ?? ''));
}

function packageOf(specifier: string): string {
  return specifier.split('/', specifier.startsWith('@') ? 2 : 1).join('/');
}
