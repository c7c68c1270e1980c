import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { REPOSITORY } from '../paths.ts';

/** One command of an installation. `seconds` is what it took on two cores with an empty cache. */
export interface Step {
  readonly label: string;
  readonly seconds: number;
  readonly command: readonly [string, ...string[]];
  readonly cwd?: string;
  readonly env?: NodeJS.ProcessEnv;
}

/** A tool of the local stack: how it is recognised and how it is installed. */
export interface Recipe {
  readonly name: string;
  readonly version: string;
  /** What installs it. */
  readonly toolchain: 'go' | 'python';
  /** The files an installation consists of, relative to its folder. */
  readonly programs: readonly string[];
  /** How one found on PATH is judged; `rule` says in words what `accepts` checks in its `--version` output. */
  readonly onPath: {
    readonly args: readonly string[];
    readonly rule: string;
    accepts(output: string): boolean;
  };
  /** How the tool itself is installed by hand, for people who do not want the toolchain. */
  readonly byHand: string;
  /** The commands that install it into the folder `into`. */
  steps(into: string): readonly Step[];
}

const KUBERNETES = 'v1.36.3';
const KUBERNETES_MODULE = join(REPOSITORY, 'src/local/toolchain/kubernetes');
const ENGINE_REQUIREMENTS = join(REPOSITORY, 'src/local/qdrant-node/requirements.txt');
const AWS_REQUIREMENTS = join(REPOSITORY, 'src/local/aws/requirements.txt');

/** In the order of their builds: the longest first, so that it does not run alone at the end. */
export const RECIPES = {
  kubernetes: {
    name: 'kubernetes',
    version: KUBERNETES,
    toolchain: 'go',
    programs: ['kube-apiserver', 'kube-controller-manager', 'kube-scheduler'],
    onPath: {
      args: ['--version'],
      rule: '1.33 or newer, all three of the same minor version',
      accepts: (output) => atLeast(output, /Kubernetes v(1)\.(\d+)/, 33),
    },
    byHand: 'https://kubernetes.io/releases/download/#binaries (all three, in one folder named by KUBEBUILDER_ASSETS)',
    steps: (into) => [
      buildKubernetes(into, 'kube-apiserver', 212),
      buildKubernetes(into, 'kube-controller-manager', 67),
      buildKubernetes(into, 'kube-scheduler', 6),
    ],
  },
  temporal: {
    name: 'temporal',
    version: 'v1.5.1',
    toolchain: 'go',
    programs: ['temporal'],
    onPath: {
      args: ['--version'],
      rule: 'with server 1.28 or newer',
      accepts: (output) => atLeast(output, /Server (1)\.(\d+)/, 28),
    },
    byHand: 'brew install temporal, or https://docs.temporal.io/cli#install',
    steps: (into) => [goInstall(into, 'github.com/temporalio/cli/cmd/temporal@v1.5.1', 180)],
  },
  helm: {
    name: 'helm',
    version: 'v3.22.0',
    toolchain: 'go',
    programs: ['helm'],
    onPath: {
      args: ['version', '--short'],
      rule: '3.14 or newer, but not 4',
      accepts: (output) => atLeast(output, /v(3)\.(\d+)/, 14),
    },
    byHand: 'brew install helm@3, or https://helm.sh/docs/intro/install/',
    steps: (into) => [goInstall(into, 'helm.sh/helm/v3/cmd/helm@v3.22.0', 90)],
  },
  kine: {
    name: 'kine',
    version: 'v0.16.4',
    toolchain: 'go',
    programs: ['kine'],
    onPath: {
      args: ['--version'],
      rule: '0.16 or newer that says so (one built by `go install` does not)',
      accepts: (output) => atLeast(output, /v(0)\.(\d+)/, 16),
    },
    byHand: 'https://github.com/k3s-io/kine/releases',
    steps: (into) => [goInstall(into, 'github.com/k3s-io/kine@v0.16.4', 73)],
  },
  versitygw: {
    name: 'versitygw',
    version: 'v1.8.0',
    toolchain: 'go',
    programs: ['versitygw'],
    onPath: {
      args: ['--version'],
      rule: '1.8 or newer that says so (one built by `go install` does not)',
      accepts: (output) => atLeast(output, /v?(1)\.(\d+)\.\d+/, 8),
    },
    byHand: 'https://github.com/versity/versitygw/releases',
    steps: (into) => [goInstall(into, 'github.com/versity/versitygw/cmd/versitygw@v1.8.0', 44)],
  },
  qdrantEdge: {
    name: 'qdrant-edge',
    get version() {
      return `${pinned(ENGINE_REQUIREMENTS, 'qdrant-edge-py')}-orjson-${pinned(ENGINE_REQUIREMENTS, 'orjson')}`;
    },
    toolchain: 'python',
    programs: ['bin/python'],
    onPath: { args: [], rule: 'never', accepts: () => false },
    byHand: 'a Qdrant server, on PATH as `qdrant` or named by QDRANT_BIN: https://github.com/qdrant/qdrant/releases',
    steps: (into) => pythonEnvironment(into, "Qdrant's engine", ENGINE_REQUIREMENTS, 5),
  },
  awsEmulators: {
    name: 'aws-emulators',
    get version() {
      return `moto-${pinned(AWS_REQUIREMENTS, 'moto')}-ministack-${pinned(AWS_REQUIREMENTS, 'ministack')}`;
    },
    toolchain: 'python',
    programs: ['bin/python'],
    onPath: { args: [], rule: 'never', accepts: () => false },
    byHand: 'not at all: the emulators are of these versions, in an environment of their own',
    steps: (into) => pythonEnvironment(into, 'AWS emulators', AWS_REQUIREMENTS, 14),
  },
} satisfies Record<string, Recipe>;

function goInstall(into: string, target: string, seconds: number): Step {
  return {
    label: target.replace(/^.*\/([^/]+)$/, '$1').replace('@', ' '),
    seconds,
    command: ['go', 'install', '-trimpath', '-ldflags', '-s -w', target],
    // A workspace or a module around the current folder must not take part in what is a build of somebody else's.
    env: { GOBIN: into, CGO_ENABLED: '0', GOWORK: 'off' },
  };
}

function pythonEnvironment(into: string, label: string, requirements: string, seconds: number): Step[] {
  return [
    { label: `a Python environment for ${label}`, seconds: 4, command: ['python3', '-m', 'venv', into] },
    {
      label,
      seconds,
      command: [join(into, 'bin/python'), '-m', 'pip', 'install', '--quiet', '--requirement', requirements],
    },
  ];
}

function buildKubernetes(into: string, program: string, seconds: number): Step {
  const version = 'k8s.io/component-base/version';
  const [major, minor] = KUBERNETES.slice(1).split('.');
  // Without these the server calls itself v0.0.0, which charts refuse.
  const stamps = [
    `-X ${version}.gitVersion=${KUBERNETES}`,
    `-X ${version}.gitMajor=${major}`,
    `-X ${version}.gitMinor=${minor}`,
  ];
  return {
    label: `${program} ${KUBERNETES}`,
    seconds,
    command: [
      'go',
      'build',
      '-trimpath',
      '-buildvcs=false',
      '-mod=readonly',
      `-ldflags=${['-s', '-w', ...stamps].join(' ')}`,
      `-o=${join(into, program)}`,
      `k8s.io/kubernetes/cmd/${program}`,
    ],
    cwd: KUBERNETES_MODULE,
    env: { CGO_ENABLED: '0', GOWORK: 'off' },
  };
}

/** Whether the version that `pattern` finds (major, minor) has at least this minor number. */
function atLeast(output: string, pattern: RegExp, minor: number): boolean {
  const found = pattern.exec(output);
  return found !== null && Number(found[2]) >= minor;
}

function pinned(requirements: string, distribution: string): string {
  const line = readFileSync(requirements, 'utf8')
    .split('\n')
    .find((line) => line.startsWith(`${distribution}==`));
  if (line === undefined) throw new Error(`${requirements} does not pin ${distribution}.`);
  return line.slice(distribution.length + 2).split(/[\s;]/)[0] ?? '';
}
