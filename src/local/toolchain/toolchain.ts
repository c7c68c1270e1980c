import { createWriteStream } from 'node:fs';
import { mkdir, readdir, rename, rm } from 'node:fs/promises';
import { availableParallelism, totalmem } from 'node:os';
import { dirname, join } from 'node:path';
import { execa, ExecaError } from 'execa';
import { lock } from '../lock.ts';
import { toolsDirectory } from '../paths.ts';
import { findInstalled, findOnMachine, findProgram, pathFolders } from './find.ts';
import { duration, Progress } from './progress.ts';
import { RECIPES, type Recipe, type Step } from './recipes.ts';

/** Absolute paths of the programs that the local stack runs. */
export interface Tools {
  readonly temporal: string;
  readonly helm: string;
  readonly versitygw: string;
  readonly kine: string;
  readonly kubeApiserver: string;
  readonly kubeControllerManager: string;
  readonly kubeScheduler: string;
  /** A Qdrant server of the machine, else the Python that has Qdrant's engine. */
  readonly qdrant: { readonly server: string } | { readonly python: string };
}

/** Thrown when the machine neither has a tool nor the toolchain that installs it. Says what to install. */
export class MissingToolchainError extends Error {
  override name = 'MissingToolchainError';
}

/** Thrown when a tool could not be built. Shows the end of the build's output. */
export class ToolInstallError extends Error {
  override name = 'ToolInstallError';
}

interface Options {
  log?: (line: string) => void;
  signal?: AbortSignal | undefined;
  environment?: NodeJS.ProcessEnv;
}

/** Finds every tool of the local stack, and installs those that are missing. */
export async function ensureTools(options: Options = {}): Promise<Tools> {
  const environment = options.environment ?? process.env;
  const server = environment.QDRANT_BIN || findProgram('qdrant', pathFolders(environment));
  const { kubernetes, temporal, helm, kine, versitygw, qdrantEdge } = RECIPES;
  const recipes = [kubernetes, temporal, helm, kine, versitygw, ...(server ? [] : [qdrantEdge])];
  const found = await ensure(recipes, options);
  const program = (recipe: Recipe, index = 0) => found.get(recipe)?.[index] ?? '';
  return {
    temporal: program(temporal),
    helm: program(helm),
    versitygw: program(versitygw),
    kine: program(kine),
    kubeApiserver: program(kubernetes, 0),
    kubeControllerManager: program(kubernetes, 1),
    kubeScheduler: program(kubernetes, 2),
    qdrant: server ? { server } : { python: program(qdrantEdge) },
  };
}

/** The programs of each recipe, in its own order; what is missing is installed, two at a time. */
export async function ensure(recipes: readonly Recipe[], options: Options = {}): Promise<Map<Recipe, string[]>> {
  const environment = options.environment ?? process.env;
  const log = options.log ?? (() => undefined);
  const found = new Map<Recipe, string[]>();
  const missing: Recipe[] = [];
  await Promise.all(
    recipes.map(async (recipe) => {
      const programs =
        (await findOnMachine(recipe, environment)) ?? findInstalled(recipe, folderOf(recipe, environment));
      if (programs === undefined) missing.push(recipe);
      else found.set(recipe, programs);
    }),
  );
  if (missing.length === 0) return found;

  missing.sort((a, b) => recipes.indexOf(a) - recipes.indexOf(b));
  const toolchains = await checkToolchains(missing, environment);
  const steps = new Map(missing.map((recipe) => [recipe, recipe.steps(buildFolderOf(recipe, environment))]));
  const all = [...steps.values()].flat();
  const seconds = all.reduce((total, step) => total + step.seconds, 0);
  log(`Installing ${missing.map((recipe) => `${recipe.name} ${recipe.version}`).join(', ')}`);
  log(`into ${toolsDirectory(environment)}: once, about ${duration((seconds * 2) / Math.max(2, cores()))}.`);

  const progress = new Progress(all, log);
  const failure = new AbortController();
  const signal = AbortSignal.any([failure.signal, ...(options.signal ? [options.signal] : [])]);
  const queue = [...missing];
  // Two at a time: one downloads while another compiles. The linker of kube-apiserver wants 2 GB for itself.
  const lanes = totalmem() < 6e9 ? 1 : 2;
  const lane = async () => {
    for (let recipe = queue.shift(); recipe !== undefined && !signal.aborted; recipe = queue.shift()) {
      const context = { environment, toolchains, signal, log, progress, steps: steps.get(recipe) ?? [] };
      found.set(recipe, await install(recipe, context));
    }
  };
  try {
    const outcomes = await Promise.allSettled(
      Array.from({ length: lanes }, () =>
        lane().catch((error: unknown) => {
          failure.abort(); // the others' work is kept by Go's own cache
          throw error;
        }),
      ),
    );
    options.signal?.throwIfAborted();
    const failed = outcomes
      .filter((outcome) => outcome.status === 'rejected')
      .map((outcome) => outcome.reason as unknown);
    if (failed.length > 0) throw failed.find((error) => error instanceof ToolInstallError) ?? failed[0];
  } finally {
    progress.end();
  }
  return found;
}

interface InstallContext {
  environment: NodeJS.ProcessEnv;
  toolchains: NodeJS.ProcessEnv;
  signal: AbortSignal;
  log: (line: string) => void;
  progress: Progress;
  steps: readonly Step[];
}

/** Builds beside the final folder and renames at the end, so that a folder that exists is complete. */
async function install(recipe: Recipe, context: InstallContext): Promise<string[]> {
  const folder = folderOf(recipe, context.environment);
  const building = buildFolderOf(recipe, context.environment);
  const release = await lock(`${folder}.lock`, {
    signal: context.signal,
    onWait: ({ pid }) => context.log(`${recipe.name}: process ${pid} is installing it, waiting for that.`),
  });
  try {
    const installed = findInstalled(recipe, folder);
    if (installed !== undefined) return installed;
    await removeAbandoned(recipe, folder);
    await mkdir(building, { recursive: true });
    for (const step of context.steps) await context.progress.during(step, () => run(recipe, step, context));
    await rm(folder, { recursive: true, force: true });
    await rename(building, folder);
  } finally {
    await rm(building, { recursive: true, force: true });
    release();
  }
  const programs = findInstalled(recipe, folder);
  if (programs === undefined) {
    throw new ToolInstallError(
      `${recipe.name} was installed, but ${folder} lacks one of ${recipe.programs.join(', ')}.`,
    );
  }
  return programs;
}

async function run(recipe: Recipe, step: Step, context: InstallContext): Promise<void> {
  const [command, ...args] = step.command;
  const logFile = join(dirname(folderOf(recipe, context.environment)), 'install.log');
  const output = createWriteStream(logFile, { flags: 'a' });
  output.write(`$ ${step.command.join(' ')}\n`);
  try {
    await execa(command, args, {
      all: true,
      env: { ...context.environment, ...context.toolchains, ...step.env },
      extendEnv: false,
      cancelSignal: context.signal,
      ...(step.cwd === undefined ? {} : { cwd: step.cwd }),
      stdin: 'ignore',
      stdout: ['pipe', { file: logFile, append: true }],
      stderr: ['pipe', { file: logFile, append: true }],
    });
  } catch (error) {
    if (!(error instanceof ExecaError) || error.isCanceled) throw error;
    const end = (error.all ?? error.shortMessage).split('\n').slice(-15).join('\n  ');
    throw new ToolInstallError(
      `${step.label} could not be installed: \`${step.command.join(' ')}\` failed` +
        ` with exit code ${error.exitCode ?? error.signal}.\n  ${end}\nThe whole output is in ${logFile}.\n` +
        `Instead of building it, you can install it yourself: ${recipe.byHand}`,
      { cause: error },
    );
  } finally {
    output.end();
  }
}

/** Removes what an installation that was killed has left; the lock says that nobody is at it now. */
async function removeAbandoned(recipe: Recipe, folder: string): Promise<void> {
  await mkdir(dirname(folder), { recursive: true });
  for (const entry of await readdir(dirname(folder))) {
    if (!entry.startsWith(`.building-${recipe.version}-`)) continue;
    await rm(join(dirname(folder), entry), { recursive: true, force: true });
  }
}

function folderOf(recipe: Recipe, environment: NodeJS.ProcessEnv): string {
  return join(toolsDirectory(environment), recipe.name, recipe.version);
}

function buildFolderOf(recipe: Recipe, environment: NodeJS.ProcessEnv): string {
  return join(toolsDirectory(environment), recipe.name, `.building-${recipe.version}-${process.pid}`);
}

function cores(): number {
  return availableParallelism();
}

/** Refuses early when the toolchain of a missing tool is missing too. Returns what it needs in its environment. */
async function checkToolchains(missing: readonly Recipe[], environment: NodeJS.ProcessEnv): Promise<NodeJS.ProcessEnv> {
  const names = (toolchain: Recipe['toolchain']) => missing.filter((recipe) => recipe.toolchain === toolchain);
  const problems: string[] = [];
  const extra: NodeJS.ProcessEnv = {};
  if (names('go').length > 0) {
    const go = await inspectGo(environment);
    if (go.problem !== undefined) problems.push(explain(go.problem, GO_HELP, names('go')));
    Object.assign(extra, go.environment);
  }
  if (names('python').length > 0) {
    const problem = await inspectPython(environment);
    if (problem !== undefined) problems.push(explain(problem, PYTHON_HELP, names('python')));
  }
  if (problems.length > 0) throw new MissingToolchainError(problems.join('\n\n'));
  return extra;
}

const GO_HELP = [
  'Install Go 1.26 or newer (1.21 or newer fetches the rest by itself):',
  '  Debian, Ubuntu   sudo apt-get install golang-go',
  '  macOS            brew install go',
  '  anything else    https://go.dev/dl/',
].join('\n');

const PYTHON_HELP = [
  'Install Python 3.10 or newer with venv:',
  '  Debian, Ubuntu   sudo apt-get install python3 python3-venv',
  '  macOS            brew install python3',
].join('\n');

function explain(problem: string, help: string, recipes: readonly Recipe[]): string {
  return [
    `Not on PATH, or in a version that will not do: ${recipes.map((recipe) => recipe.programs.join(', ')).join(', ')}.`,
    `They cannot be installed either: ${problem}`,
    help,
    'Or install them yourself:',
    ...recipes.map((recipe) => `  ${recipe.name} ${recipe.version.padEnd(9)} ${recipe.byHand}`),
  ].join('\n');
}

async function inspectGo(
  environment: NodeJS.ProcessEnv,
): Promise<{ problem?: string; environment?: NodeJS.ProcessEnv }> {
  const folders = pathFolders(environment);
  const program = findProgram('go', folders);
  if (program === undefined) return { problem: 'there is no `go` on PATH.' };
  const options = { reject: false, env: environment, extendEnv: false, cwd: '/' } as const;
  const { stdout } = await execa(program, ['env', 'GOVERSION', 'GOTOOLCHAIN'], options);
  const [version = '', toolchain = ''] = stdout.split('\n');
  const minor = Number(/^go1\.(\d+)/.exec(version)?.[1] ?? 0);
  if (minor >= 26) return {};
  if (minor < 21) return { problem: `${program} is ${version || 'of an unknown version'}.` };
  // Some distributions switch off that Go fetches the version a module asks for; what the user says comes first.
  if (environment.GOTOOLCHAIN === undefined) return { environment: { GOTOOLCHAIN: 'auto' } };
  return toolchain.startsWith('local') ? { problem: `${program} is ${version} and GOTOOLCHAIN is ${toolchain}.` } : {};
}

async function inspectPython(environment: NodeJS.ProcessEnv): Promise<string | undefined> {
  const program = findProgram('python3', pathFolders(environment));
  if (program === undefined) return 'there is no `python3` on PATH.';
  const check = 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 10))';
  const { exitCode, stderr } = await execa(program, ['-c', check], {
    reject: false,
    env: environment,
    extendEnv: false,
  });
  if (exitCode === 0) return undefined;
  return stderr.includes('ModuleNotFoundError')
    ? `${program} lacks its venv and ensurepip modules.`
    : `${program} is older than 3.10.`;
}
