/** The `temporal` CLI as people use it: start, query, schedule, and read why something failed. */
import { afterAll, beforeAll, expect, test } from 'vitest';
import { Fleet, until } from '../support/fleet.ts';

let fleet: Fleet;
beforeAll(async () => {
  fleet = await Fleet.open();
  await fleet.worker();
});
afterAll(() => fleet.close());

interface Described {
  readonly workflowExecutionInfo: {
    readonly status: string;
    readonly searchAttributes: { indexedFields: Record<string, { data: string }> };
  };
}

async function describeWorkflow(workflowId: string): Promise<Described> {
  return JSON.parse(await fleet.temporal('workflow', 'describe', '-w', workflowId, '-o', 'json')) as Described;
}

function attribute({ workflowExecutionInfo }: Described, name: string): unknown {
  const { data } = workflowExecutionInfo.searchAttributes.indexedFields[name] ?? {};
  return data === undefined ? undefined : JSON.parse(Buffer.from(data, 'base64').toString());
}

test('start by hand with one JSON object, query the progress, read the table and the search attributes', async () => {
  const input = JSON.stringify({
    tenant: fleet.tenant,
    cluster: 'docs',
    nodes: 2,
    collections: [{ preset: 'documents', vectorSize: 4 }],
  });
  const id = `by-hand-${fleet.tenant}`;
  const common = ['--task-queue', fleet.taskQueue, '--workflow-id', id, '--input', input];
  await fleet.temporal('workflow', 'start', '--type', 'ProvisionCluster', ...common);
  const result = await fleet.temporal('workflow', 'result', '--workflow-id', id);
  expect(result).toContain('COMPLETED');

  const progress = await fleet.temporal('workflow', 'query', '-w', id, '--type', 'progress', '-o', 'json');
  expect(JSON.parse(progress)).toMatchObject({
    queryResult: [{ kind: 'provision', cluster: 'docs', phase: 'done', percent: 100 }],
  });
  const metadata = await fleet.temporal('workflow', 'metadata', '-w', id);
  expect(metadata).toContain('| ✔ | Install the chart |');
  const described = await describeWorkflow(id);
  expect(attribute(described, 'FleetTenant')).toBe(fleet.tenant);
  expect(attribute(described, 'FleetCluster')).toBe('docs');
  expect(attribute(described, 'FleetOperation')).toBe('provision');
  expect(attribute(described, 'FleetPhase')).toBe('done');
  const found = await until('the list finds it', async () => {
    const list = await fleet.temporal('workflow', 'list', '-q', `FleetTenant = "${fleet.tenant}"`);
    return list.includes(id);
  });
  expect(found).toBe(true);
});

test('a schedule made by hand backs up when it is triggered; the slot names the backup', async () => {
  const schedule = `nightly-${fleet.tenant}`;
  const input = JSON.stringify({ tenant: fleet.tenant, cluster: 'docs', retention: { keepLast: 3 } });
  const action = ['--type', 'BackupCluster', '--task-queue', fleet.taskQueue, '--workflow-id', schedule];
  const when = ['--cron', '0 3 * * *', '--time-zone', 'UTC', '--overlap-policy', 'Skip', '--catchup-window', '1h'];
  await fleet.temporal('schedule', 'create', '--schedule-id', schedule, ...action, ...when, '--input', input);
  await fleet.temporal('schedule', 'trigger', '--schedule-id', schedule);
  const row = await until('the scheduled backup is listed', async () => {
    const [first] = await fleet.catalog.backups({ tenant: fleet.tenant, cluster: 'docs' }, { limit: 1 });
    return first;
  });
  const runs = await fleet.temporal('schedule', 'describe', '--schedule-id', schedule, '-o', 'json');
  const { info } = JSON.parse(runs) as {
    info: { recentActions: { actualTime: string; startWorkflowResult: { workflowId: string } }[] };
  };
  const [action1] = info.recentActions;
  const { workflowId } = action1?.startWorkflowResult ?? { workflowId: '' };
  expect(workflowId.startsWith(`${schedule}-`)).toBe(true);
  expect(await fleet.client.workflow.getHandle(workflowId).result()).toMatchObject({ backup: row.backup });
  // Temporal appends the slot to the workflow's id, and the backup is named by the same slot.
  const slot = workflowId.slice(schedule.length + 1).replaceAll(/[-:]/g, '');
  expect(row.backup.startsWith(slot)).toBe(true);
  await fleet.temporal('schedule', 'delete', '--schedule-id', schedule);
});

test('bad input fails the workflow with the field and the remedy, and calls nothing', async () => {
  const id = `bad-${fleet.tenant}`;
  const input = '{"tenant":"Acme","clustr":"docs"}';
  const common = ['--task-queue', fleet.taskQueue, '--workflow-id', id, '--input', input];
  await fleet.temporal('workflow', 'start', '--type', 'BackupCluster', ...common);
  const end = await until('it fails', async () => {
    const text = await fleet.temporal('workflow', 'describe', '-w', id);
    return text.includes('FAILED') && text;
  });
  expect(end).toContain('tenant: must be lower-case letters');
  expect(end).toContain('cluster: is needed');
  expect(end).toContain('clustr: is not known here; known: tenant, cluster, collections, format, retention');
  const history = await fleet.temporal('workflow', 'show', '-w', id, '-o', 'json');
  expect(history).toContain('"type": "InvalidInput"');
  expect(history).not.toContain('ACTIVITY_TASK_SCHEDULED');
});

test('activities carry summaries that a person understands', async () => {
  const id = `by-hand-${fleet.tenant}`;
  const history = await fleet.temporal('workflow', 'show', '-w', id, '-o', 'json');
  const { events } = JSON.parse(history) as { events: { userMetadata?: { summary?: { data: string } } }[] };
  const summaries = events.flatMap(({ userMetadata }) =>
    userMetadata?.summary === undefined
      ? []
      : [String(JSON.parse(Buffer.from(userMetadata.summary.data, 'base64').toString()))],
  );
  expect(summaries).toContain('2 peers up and in consensus');
  expect(summaries).toContain('Collection "documents", 4 dimensions');
});
