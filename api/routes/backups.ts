/** Backups of a cluster, and restores from them. */
import { z } from '@hono/zod-openapi';
import type { BackupRow } from '../../src/clients/catalog.ts';
import { SHOWN_STATES, type BackupState } from '../../src/domain/backup.ts';
import { FleetError } from '../../src/domain/errors.ts';
import { parseBackupInput, parseRestoreInput } from '../../src/domain/input.ts';
import { isBackupId } from '../../src/domain/naming.ts';
import { addRoute, type Api, type ApiContext, type ApiDeps } from '../context.ts';
import { backupNotFound, backupParam, clusterParam, pageAfter, pageOf, readBody, readQuery } from '../request.ts';
import { Backup, BackupBody, BackupsQuery, RestoreBody } from '../schemas.ts';
import { accepted, startOperation } from '../start-operation.ts';
import { existingCluster, requireClusterOrBackups } from './clusters.ts';
import { body, json, pageOfSchema, param, problems, started, startHeaders } from './documentation.ts';

const TAGS = ['Backups'];

export function backupRoutes(api: Api, deps: ApiDeps): void {
  addRoute(
    api,
    {
      method: 'post',
      path: '/v1/clusters/{cluster}/backups',
      tags: TAGS,
      summary: 'Back up a cluster now',
      request: { params: z.object({ cluster: param.cluster }), headers: startHeaders, body: body(BackupBody, false) },
      responses: { ...started(), ...problems('InvalidInput', 'ClusterNotFound', 'IdempotencyKeyReused') },
    },
    async (c) => {
      const [tenant, cluster] = [c.get('tenant'), clusterParam(c)];
      const input = await readBody(c, { schema: BackupBody, fixed: { tenant, cluster }, parse: parseBackupInput });
      const summary = `Back up ${tenant}/${cluster}`;
      const check = async () => void (await existingCluster(c, deps));
      return accepted(c, await startOperation(c, deps, { kind: 'backup', cluster, input, summary, check }));
    },
  );
  addRoute(
    api,
    {
      method: 'get',
      path: '/v1/clusters/{cluster}/backups',
      tags: TAGS,
      summary:
        'List the backups of a cluster, newest first, also after the cluster is gone; on request those being removed',
      request: { params: z.object({ cluster: param.cluster }), query: BackupsQuery },
      responses: { 200: json(pageOfSchema(Backup), 'One page'), ...problems('InvalidInput', 'ClusterNotFound') },
    },
    async (c) => {
      const ref = { tenant: c.get('tenant'), cluster: clusterParam(c) };
      const { state, ...paging } = readQuery(c, BackupsQuery);
      const { size, page } = pageAfter(paging, isBackupId);
      const rows = await deps.catalog.backups(ref, page, state);
      if (rows.length === 0) await requireClusterOrBackups(c, deps);
      return c.json(pageOf(rows, size, (row) => row.backup, viewOfBackup));
    },
  );
  addRoute(
    api,
    {
      method: 'get',
      path: '/v1/backups/{backup}',
      tags: TAGS,
      summary: 'Look at a backup',
      request: { params: z.object({ backup: param.backup }) },
      responses: { 200: json(Backup, 'The backup'), ...problems('BackupNotFound') },
    },
    async (c) => c.json(viewOfBackup(await existingBackup(c, deps))),
  );
  addRoute(
    api,
    {
      method: 'post',
      path: '/v1/backups/{backup}/restores',
      tags: TAGS,
      summary: 'Restore a backup into a cluster, which is made when it does not exist',
      request: { params: z.object({ backup: param.backup }), headers: startHeaders, body: body(RestoreBody) },
      responses: {
        ...started(),
        ...problems('InvalidInput', 'BackupNotFound', 'BackupNotCommitted', 'IdempotencyKeyReused'),
      },
    },
    async (c) => {
      const row = await existingBackup(c, deps);
      const { tenant, backup, cluster: source } = row;
      const input = await readBody(c, {
        schema: RestoreBody,
        fixed: { tenant, backup, source },
        parse: parseRestoreInput,
      });
      const { cluster } = input;
      const summary = `Restore ${tenant}/${cluster} from ${source} of ${backup.slice(0, 16)}`;
      const check = () => Promise.resolve(refuseUnreadable(row, input.acceptDamaged));
      return accepted(c, await startOperation(c, deps, { kind: 'restore', cluster, input, summary, check }));
    },
  );
  addRoute(
    api,
    {
      method: 'post',
      path: '/v1/backups/{backup}/verifications',
      tags: TAGS,
      summary: 'Prove that a backup is still what was committed: read, hash and open every shard',
      request: { params: z.object({ backup: param.backup }), headers: startHeaders },
      responses: {
        ...started(),
        ...problems('InvalidInput', 'BackupNotFound', 'BackupNotCommitted', 'IdempotencyKeyReused'),
      },
    },
    async (c) => {
      const row = await existingBackup(c, deps);
      const { tenant, backup, cluster } = row;
      const input = { tenant, cluster, backup };
      const summary = `Verify ${tenant}/${cluster} of ${backup.slice(0, 16)}`;
      const check = () => Promise.resolve(refuseUnreadable(row, true));
      return accepted(c, await startOperation(c, deps, { kind: 'verify', cluster, input, summary, check }));
    },
  );
  addRoute(
    api,
    {
      method: 'post',
      path: '/v1/backups/{backup}/undelete',
      tags: TAGS,
      summary: 'Take the removal of a backup back, as long as its data has not begun to go',
      request: { params: z.object({ backup: param.backup }), headers: startHeaders },
      responses: {
        ...started(),
        ...problems('InvalidInput', 'BackupNotFound', 'UndeleteRefused', 'IdempotencyKeyReused'),
      },
    },
    async (c) => {
      const { tenant, backup, cluster, state } = await existingBackup(c, deps, ['PURGING', 'DELETED', ...SHOWN_STATES]);
      const input = { tenant, cluster, backup };
      const summary = `Take the removal of ${tenant}/${cluster} of ${backup.slice(0, 16)} back`;
      // Whether it is in time decides the record in the bucket; what the index knows to be too late need not be tried.
      const check = () => {
        if (state !== 'PURGING' && state !== 'DELETED') return Promise.resolve();
        throw new FleetError('UndeleteRefused', `Backup "${backup}" is ${state}: its data is going or gone.`);
      };
      return accepted(c, await startOperation(c, deps, { kind: 'undelete', cluster, input, summary, check }));
    },
  );
}

async function existingBackup(c: ApiContext, deps: ApiDeps, states?: readonly BackupState[]): Promise<BackupRow> {
  const id = backupParam(c);
  const row = await deps.catalog.backup(c.get('tenant'), id, states);
  if (row === undefined) throw backupNotFound(id);
  return row;
}

/** @throws FleetError `BackupNotCommitted`, `BackupDamaged` */
function refuseUnreadable({ backup, state }: BackupRow, acceptDamaged = false): void {
  if (state === 'DELETING') {
    throw new FleetError(
      'BackupNotCommitted',
      `Backup "${backup}" is being removed. Take that back first: POST /v1/backups/${backup}/undelete.`,
    );
  }
  if (state === 'CORRUPT' && !acceptDamaged) {
    throw new FleetError(
      'BackupDamaged',
      `A verification found backup "${backup}" damaged. Restore from another one, or say "acceptDamaged": true.`,
    );
  }
}

function viewOfBackup(row: BackupRow) {
  return {
    id: row.backup,
    cluster: row.cluster,
    state: row.state,
    ...(row.bucket !== null && { bucket: row.bucket }),
    ...(row.totals !== null && { totals: row.totals }),
    createdAt: row.created_at.toISOString(),
    changedAt: row.changed_at.toISOString(),
    ...(row.deleting_since !== null && { deletingSince: row.deleting_since.toISOString() }),
    ...(row.purge_after !== null && { purgeAfter: row.purge_after.toISOString() }),
  };
}
