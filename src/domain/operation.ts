/** Operations as users see them: which kinds there are, and the steps of one. */

/** Public workflow types, by the operation kind that appears in ids, the catalogue and the API. */
export const OPERATION_KINDS = {
  provision: 'ProvisionCluster',
  update: 'UpdateCluster',
  suspend: 'SuspendCluster',
  resume: 'ResumeCluster',
  'rotate-key': 'RotateApiKey',
  'rotate-certificates': 'RotateCertificates',
  delete: 'DeleteCluster',
  backup: 'BackupCluster',
  restore: 'RestoreCluster',
  retention: 'RetentionSweep',
  verify: 'VerifyBackup',
  undelete: 'UndeleteBackup',
  sweep: 'InfrastructureSweep',
} as const;

export type OperationKind = keyof typeof OPERATION_KINDS;

export type StepPhase = 'pending' | 'running' | 'done' | 'failed' | 'skipped';

/** One step of an operation. Times are ISO 8601 UTC. */
export interface Step {
  readonly name: string;
  readonly phase: StepPhase;
  readonly startedAt?: string;
  readonly finishedAt?: string;
  readonly message?: string;
}

/** What the `progress` query of every workflow answers. */
export interface Progress {
  readonly kind: OperationKind;
  readonly tenant: string;
  readonly cluster: string;
  /** The running step's name, or `done`, `failed`, `cleaning up`. */
  readonly phase: string;
  readonly steps: readonly Step[];
  /** 0 to 100, by finished steps and, inside a step, by its own count where it has one. */
  readonly percent: number;
  /** What users should know and what does not keep the operation from its end; absent where there is nothing. */
  readonly warnings?: readonly string[];
}

/** The Markdown table that the Temporal UI shows as current details, with the warnings below it. */
export function stepTable(steps: readonly Step[], warnings: readonly string[] = []): string {
  const icon: Record<StepPhase, string> = { pending: '·', running: '▶', done: '✔', failed: '✘', skipped: '–' };
  const rows = steps.map((step) => {
    const took =
      step.startedAt !== undefined && step.finishedAt !== undefined
        ? `${((Date.parse(step.finishedAt) - Date.parse(step.startedAt)) / 1000).toFixed(1)} s`
        : '';
    return `| ${icon[step.phase]} | ${cell(step.name)} | ${took} | ${cell(step.message ?? '')} |`;
  });
  const below = warnings.length === 0 ? [] : ['', ...warnings.map((warning) => `- Warning: ${cell(warning)}`)];
  return ['| | Step | Time | |', '|---|---|---|---|', ...rows, ...below].join('\n');
}

function cell(text: string): string {
  return text.replaceAll('|', '\\|').replaceAll(/\s+/g, ' ');
}
