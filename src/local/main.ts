import { existsSync } from 'node:fs';
import { rm } from 'node:fs/promises';
import { dirname } from 'node:path';
import { findEmulators } from './aws/emulators.ts';
import { tryLock } from './lock.ts';
import { kineSocket } from './parts/kine.ts';
import { postgresFolder } from './parts/postgres.ts';
import { dataDirectory } from './paths.ts';
import { PortTakenError } from './ports.ts';
import { announce, findRunning, withdraw, type RunningStack } from './running-stack.ts';
import { AlreadyRunningError, startStack, type Infrastructure } from './stack.ts';
import { stopLeftovers } from './leftovers.ts';
import { PartCrashedError, PartNotReadyError } from './supervisor.ts';
import { ensureTools, MissingToolchainError, ToolInstallError } from './toolchain/toolchain.ts';

const VERBS = { start, demo, reset, tools } as const;

/**
 * What the verbs take: `start --aws`, `demo --provider aws`, `demo --provider aws --own-bucket`, `demo --life`; each also
 * with `--enforce-policies`.
 */
interface Arguments {
  readonly aws: boolean;
  /** Hold the pods to the network policies; needs root and nft. */
  readonly enforcePolicies?: true;
  /** Show the life of a cluster instead of the main job. */
  readonly life?: boolean | undefined;
  /** On AWS: back up into a bucket of the cluster's own, and restore from it. */
  readonly ownBucket?: boolean | undefined;
}

const FORESEEN = [
  AlreadyRunningError,
  MissingToolchainError,
  PartCrashedError,
  PartNotReadyError,
  PortTakenError,
  ToolInstallError,
];

const log = (line: string) => console.log(line);

/** Runs until a signal or a crash ends it. Resolves to the exit status. */
async function start(interrupted: AbortSignal, parsed: Arguments): Promise<number> {
  return withStack({ interrupted, parsed }, async (stack, crashed) => {
    log(`\n${summary(stack)}\n\nEverything runs. Ctrl-C stops it; what it holds is kept for the next start.`);
    await Promise.race([aborted(interrupted), crashed]);
  });
}

/** Shows the demonstration on the stack that runs, or else on one of its own that it stops at the end. */
async function demo(interrupted: AbortSignal, parsed: Arguments): Promise<number> {
  const running = findRunning(dataDirectory());
  if (running !== undefined) {
    log(`Using the stack that runs: ${running.links.api}`);
    const equal = await Promise.race([runDemo(running, parsed), aborted(interrupted)]);
    if (interrupted.aborted) return INTERRUPTED;
    return equal === true ? 0 : 1;
  }
  return withStack({ interrupted, parsed }, async (stack, crashed) => {
    log(`\n${summary(stack)}\n`);
    const equal = await Promise.race([runDemo(stack, parsed), aborted(interrupted), crashed]);
    return equal === true ? 0 : 1;
  });
}

/** Deletes everything that the stack has kept. */
async function reset(): Promise<number> {
  const dataDir = dataDirectory();
  if (!existsSync(dataDir)) {
    log(`There is nothing to delete: ${dataDir} does not exist.`);
    return 0;
  }
  const lock = tryLock(`${dataDir}/stack.lock`);
  if ('holder' in lock) {
    throw new AlreadyRunningError(`A stack runs in ${dataDir} (process ${lock.holder.pid}). Stop it first.`);
  }
  await stopLeftovers(dataDir, log);
  const elsewhere = [postgresFolder(dataDir), dirname(kineSocket(dataDir))];
  for (const folder of [dataDir, ...elsewhere]) await rm(folder, { recursive: true, force: true });
  log(`Deleted ${dataDir}.`);
  return 0;
}

/** Only installs what the stack runs, with `--aws` or without. */
async function tools(interrupted: AbortSignal): Promise<number> {
  const found = await ensureTools({ log, signal: interrupted });
  const awsEmulators = await findEmulators({ log, signal: interrupted });
  for (const [name, path] of Object.entries({ ...found, awsEmulators })) {
    log(`${name.padEnd(22)} ${typeof path === 'string' ? path : Object.values(path).join('')}`);
  }
  return 0;
}

/** Starts a stack, uses it, and stops it whatever happens. A crash of a part makes the status 1. */
async function withStack(
  { interrupted, parsed }: { interrupted: AbortSignal; parsed: Arguments },
  use: (stack: Infrastructure, crashed: Promise<never>) => Promise<number | void>,
): Promise<number> {
  const dataDir = dataDirectory();
  const { aws, enforcePolicies } = parsed;
  const options = { dataDir, log, signal: interrupted, aws, ...(enforcePolicies && { enforcePolicies }) };
  const stack = await startStack(options);
  const crashed = new Promise<never>((_, reject) => stack.onCrash(reject));
  crashed.catch(() => undefined); // it may come while nobody is waiting for it any more
  announce(dataDir, stack);
  try {
    const status = await use(stack, crashed);
    return interrupted.aborted ? INTERRUPTED : (status ?? 0);
  } catch (error) {
    log(`\n${describe(error)}`);
    return 1;
  } finally {
    withdraw(dataDir);
    log('Stopping.');
    await stack.stop();
    log('Stopped.');
  }
}

/** The demonstration is loaded only here, so that a start does not pay for it. Answers whether all is as it should be. */
async function runDemo(stack: RunningStack, { aws, life, ownBucket }: Arguments): Promise<boolean> {
  const { DemoFailedError } = await import('./demo/follow.ts');
  try {
    if (life === true) return await (await import('./demo/life.ts')).runLife(stack);
    if (aws) return await (await import('./demo/aws.ts')).runAwsDemo(stack, ownBucket === true);
    return await (await import('./demo/demo.ts')).runDemo(stack);
  } catch (error) {
    // Foreseen: the message names the operation and where to look at it.
    if (!(error instanceof DemoFailedError)) throw error;
    log(`\n${error.message}\n\nVERDICT: FAILED.`);
    return false;
  }
}

function summary({ parts, links, tools, env }: Infrastructure): string {
  const rows = parts.map(({ name, address, readyAfterMs }) => [name, address, `${(readyAfterMs / 1000).toFixed(1)} s`]);
  const named = [
    ['API', links.api],
    ['API docs', links.apiDocs],
    ['API token', `export FLEET_TOKEN=$(cat ${links.apiToken})`],
    ['Temporal UI', links.temporalUi],
    ['backups', `${links.bucket} at ${links.s3}`],
    ...(env['FLEET_AWS_ENDPOINT'] === undefined ? [] : [['AWS', `aws --endpoint-url ${env['FLEET_AWS_ENDPOINT']}`]]),
    ['kubectl', `export KUBECONFIG=${links.kubeconfig}`],
    ['temporal', `export TEMPORAL_ADDRESS=${env.TEMPORAL_ADDRESS}; ${tools.temporal} workflow list`],
  ];
  return [...table([['part', 'address', 'ready after'], ...rows]), '', ...table(named)].join('\n');
}

function table(rows: readonly (readonly string[])[]): string[] {
  const widths = (rows[0] ?? []).map((_, column) => Math.max(...rows.map((row) => row[column]?.length ?? 0)));
  return rows.map((row) =>
    row
      .map((cell, column) => cell.padEnd(widths[column] ?? 0))
      .join('  ')
      .trimEnd(),
  );
}

/** What a person needs to see: a stack trace only for what nobody foresaw. */
function describe(error: unknown): string {
  if (!(error instanceof Error)) return String(error);
  return FORESEEN.some((type) => error instanceof type) ? error.message : (error.stack ?? error.message);
}

function aborted(signal: AbortSignal): Promise<void> {
  return new Promise((resolve) => {
    if (signal.aborted) resolve();
    signal.addEventListener('abort', () => resolve(), { once: true });
  });
}

/** As a shell counts: 128 and the number of the signal, 2 for SIGINT. */
const INTERRUPTED = 130;

/**
 * The first signal stops in order, a second one kills. npm passes on what the terminal has already sent to the whole
 * group, so that one Ctrl-C arrives twice: what comes within half a second is the same one.
 */
function interruption(): AbortSignal {
  const controller = new AbortController();
  let first: number | undefined;
  for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) {
    process.on(signal, () => {
      first ??= Date.now();
      if (Date.now() - first > 500) process.exit(INTERRUPTED); // the exit listeners kill what still runs
      controller.abort(new Error('Interrupted.'));
    });
  }
  return controller.signal;
}

/** @returns undefined for arguments that the verb does not take */
function readArguments(verb: string, given: readonly string[]): Arguments | undefined {
  const rest = given.filter((argument) => argument !== ENFORCE);
  const parsed = readShape(verb, rest.join(' ').replace('=', ' '));
  if (parsed === undefined || rest.length === given.length) return parsed;
  return verb === 'start' || verb === 'demo' ? { ...parsed, enforcePolicies: true } : undefined;
}

const ENFORCE = '--enforce-policies';

function readShape(verb: string, text: string): Arguments | undefined {
  if (text === '' || (verb === 'demo' && text === '--provider kubernetes')) return { aws: false };
  if (verb === 'demo' && text === '--life') return { aws: false, life: true };
  if ((verb === 'start' && text === '--aws') || (verb === 'demo' && text === '--provider aws')) return { aws: true };
  if (verb === 'demo' && text === '--provider aws --own-bucket') return { aws: true, ownBucket: true };
  return undefined;
}

async function main(): Promise<number> {
  const [verb = '', ...given] = process.argv.slice(2);
  const parsed = Object.hasOwn(VERBS, verb) ? readArguments(verb, given) : undefined;
  if (parsed === undefined) {
    console.error(
      'Usage: npm start [-- --aws] | npm run demo [-- --provider aws [--own-bucket] | --life] | npm run reset | npm run tools; npm start and npm run demo also take -- --enforce-policies',
    );
    return 2;
  }
  const interrupted = interruption();
  try {
    return await VERBS[verb as keyof typeof VERBS](interrupted, parsed);
  } catch (error) {
    if (interrupted.aborted) return INTERRUPTED;
    console.error(describe(error));
    return 1;
  }
}

// An interrupted demonstration may still wait for something: it must not keep the process.
process.exit(await main());
