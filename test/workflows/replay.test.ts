/** Runs that are open when a new version is rolled out must go on: every recorded history replays on the code of today. */
import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { DefaultLogger, Runtime, Worker } from '@temporalio/worker';
import { DeterminismViolationError } from '@temporalio/workflow';
import { beforeAll, describe, expect, test } from 'vitest';
import { parseProvisionInput } from '../../src/domain/input.ts';
import { OPERATION_KINDS } from '../../src/domain/operation.ts';
import { bundle } from './support.ts';

/** The first event of a history, as far as its input goes. */
interface StartedEvent {
  readonly workflowExecutionStartedEventAttributes?: { readonly input: { readonly payloads: { data: string }[] } };
}

const HISTORIES = join(import.meta.dirname, '../histories');
const TYPES = readdirSync(HISTORIES, { withFileTypes: true }).flatMap((entry) =>
  entry.isDirectory() ? entry.name : [],
);

const read = (type: string, file: string) => readFileSync(join(HISTORIES, type, file), 'utf8');
const histories = TYPES.flatMap((type) =>
  readdirSync(join(HISTORIES, type))
    .filter((file) => file.endsWith('.json'))
    .map((file) => [type, file] as const),
);

let code = '';
beforeAll(async () => {
  Runtime.install({ logger: new DefaultLogger('ERROR', () => undefined) });
  code = await bundle();
});

/** Children's ids begin with their parent's, which is no part of the history; the recorder named runs by their file. */
function replay(type: string, file: string, history = read(type, file)): Promise<void> {
  const name = file.replace(/^\d+\.\d+\.\d+-(.*)\.json$/, '$1');
  return Worker.runReplayHistory({ workflowBundle: { code } }, JSON.parse(history), `${type}-${name}`);
}

describe('recorded histories', () => {
  test('there is one of every public workflow and of the child', () => {
    expect(TYPES.filter((type) => histories.some(([of]) => of === type))).toEqual(
      expect.arrayContaining([...Object.values(OPERATION_KINDS), 'BackupPeer']),
    );
  });

  test.for(histories)('%s/%s replays', async ([type, file]) => {
    await replay(type, file);
  });

  test('an activity that has another name than recorded is found out', async () => {
    const of = ['ProvisionCluster', '0.1.0-done.json'] as const;
    expect(read(...of)).toContain('"reserveCluster"');
    await expect(replay(...of, read(...of).replaceAll('"reserveCluster"', '"keepCluster"'))).rejects.toThrow(
      DeterminismViolationError,
    );
  });

  test('a step that is missing is found out', async () => {
    const of = ['RestoreCluster', '0.1.0-new-cluster.json'] as const;
    await expect(replay(...of, read(...of).replaceAll('"restoreAliases"', '"closeBackup"'))).rejects.toThrow(
      DeterminismViolationError,
    );
  });

  test('a run whose input the guards of today would refuse goes on with it', async () => {
    const of = ['ProvisionCluster', '0.1.0-done.json'] as const;
    const history = JSON.parse(read(...of)) as { events: StartedEvent[] };
    const [payload] = history.events[0]?.workflowExecutionStartedEventAttributes?.input.payloads ?? [];
    if (payload === undefined) throw new Error('The history has no input.');
    const input = JSON.parse(Buffer.from(payload.data, 'base64').toString()) as object;
    const refused = { ...input, config: { 'storage.snapshots_path': '/elsewhere' }, surprise: true };
    expect(() => parseProvisionInput(refused)).toThrow(/surprise: /);
    payload.data = Buffer.from(JSON.stringify(refused)).toString('base64');
    await replay(...of, JSON.stringify(history));
  });

  test('they hold nothing of the machine that they were recorded on', () => {
    for (const [type, file] of histories) {
      const text = read(type, file);
      const payloads = [...text.matchAll(/"data":"([^"]*)"/g)].map(([, data]) => Buffer.from(data ?? '', 'base64'));
      const all = [text, ...payloads.map(String)].join('\n');
      expect(all, `${type}/${file}`).not.toMatch(/"\d+@|\/(?:root|work|tmp|home|Users)\/|X-Amz-Signature|api-key\\?":/);
    }
  });
});
