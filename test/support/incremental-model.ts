/**
 * A model of two backups that share blocks, explored exhaustively like `commit-model.ts`: a base, which is committed,
 * and one whose uploaders refer to the base's blocks.
 *
 * Actors: two uploaders (two runs of one backup), a collector of the unfinished backup, a deleter and an undo for each
 * backup, a restorer of the new one. Each may stop for ever before any step. A lease of an uploader may lapse at any time
 * before the commit; the few requests between its last renewal and the commit are taken to be shorter than a lease.
 */
import type { BackupState } from '../../src/domain/backup.ts';

export interface Variant {
  /** The deleter lists the leases before it reads the records. */
  readonly leasesFirst: boolean;
  /** The deleter reads the records of other backups at all. */
  readonly readsRecords: boolean;
  /** Backups that are marked, and may be taken back or still be read, count as referring. */
  readonly markedCount: boolean;
  /** An uploader writes its lease before it reads the base's record. */
  readonly leaseFirst: boolean;
  /** An uploader changes the record of a base that is marked already. */
  readonly touches: boolean;
  /** An uploader takes its lease again, and looks again, before it commits. */
  readonly renews: boolean;
  /** An uploader lets go after its own commit, not before. */
  readonly letsGoLast: boolean;
}

export const SHARING: Variant = {
  leasesFirst: true,
  readsRecords: true,
  markedCount: true,
  leaseFirst: true,
  touches: true,
  renews: true,
  letsGoLast: true,
};

/** Ways to get it wrong. The checker has to refute each of them. */
export const BROKEN_SHARING = {
  'records are read before the leases are listed': { leasesFirst: false },
  'a purge that ignores who refers to the data': { readsRecords: false },
  'only listed backups count as referring': { markedCount: false },
  'the record is read before the lease is written': { leaseFirst: false },
  'a marked base is referred to without changing its record': { touches: false },
  'a lease that has lapsed is not taken again': { renews: false },
  'the lease is let go before the commit': { letsGoLast: false },
} as const satisfies Record<string, Partial<Variant>>;

interface Uploader {
  /** What it does next. */
  at: 'start' | 'look' | 'touch' | 'write' | 'renew' | 'check' | 'retouch' | 'commit' | 'release' | 'end';
  refers: boolean;
  lease: boolean;
  /** Revision of the base's record that it saw. */
  saw: number;
}

interface State {
  base: BackupState;
  /** Stands for the ETag: every write gives a new one. */
  baseRevision: number;
  baseData: boolean;
  record: BackupState | 'absent';
  revision: number;
  owner: number;
  refers: boolean;
  data: [boolean, boolean];
  uploaders: [Uploader, Uploader];
  baseDeleter: number;
  baseDeleterSaw: number;
  baseUndo: number;
  baseUndoSaw: number;
  deleter: number;
  deleterSaw: number;
  undo: number;
  undoSaw: number;
  collector: number;
  restorer: number;
  restoreLease: boolean;
  restores: number;
  restoreRefers: boolean;
  lost: boolean;
}

const IDLE: Uploader = { at: 'start', refers: false, lease: false, saw: -1 };
const START: State = {
  base: 'COMMITTED',
  baseRevision: 0,
  baseData: true,
  record: 'absent',
  revision: 0,
  owner: -1,
  refers: false,
  data: [false, false],
  uploaders: [IDLE, IDLE],
  baseDeleter: 0,
  baseDeleterSaw: -1,
  baseUndo: 0,
  baseUndoSaw: -1,
  deleter: 0,
  deleterSaw: -1,
  undo: 0,
  undoSaw: -1,
  collector: 0,
  restorer: 0,
  restoreLease: false,
  restores: -1,
  restoreRefers: false,
  lost: false,
};
const END = 9;

type Actor = 'second uploader' | 'collector' | 'base undo' | 'deleter' | 'undo' | 'restorer';

/** All actors at once have some ten million states; these casts have every pair of them in one. */
export const CASTS: Readonly<Record<string, readonly Actor[]>> = {
  'one uploader, everybody else': ['collector', 'base undo', 'deleter', 'undo', 'restorer'],
  'two runs of the backup, who deletes both': ['second uploader', 'collector', 'deleter'],
  'two runs of the backup, undo of the base': ['second uploader', 'collector', 'base undo'],
};

/** Explore all states breadth first. @returns the shortest run into a state that must not be, if there is one */
export function checkSharing(
  variant: Variant,
  cast: readonly Actor[],
): { states: number; violation: readonly string[] | undefined } {
  const seen = new Map<string, { from: string | undefined; step: string }>();
  const first = keyOf(START);
  seen.set(first, { from: undefined, step: 'start' });
  let frontier: [string, State][] = [[first, START]];
  while (frontier.length > 0) {
    const next: [string, State][] = [];
    for (const [key, state] of frontier) {
      if (isWrong(state)) return { states: seen.size, violation: pathTo(key, seen) };
      for (const [step, after] of steps(state, variant, cast)) {
        const name = keyOf(after);
        if (seen.has(name)) continue;
        seen.set(name, { from: key, step });
        next.push([name, after]);
      }
    }
    frontier = next;
  }
  return { states: seen.size, violation: undefined };
}

/** 1. What is listed has its data and the data that it refers to. 2. A restore that began finds both. */
function isWrong({ base, baseData, record, owner, refers, data, lost }: State): boolean {
  if (lost || (base === 'COMMITTED' && !baseData)) return true;
  return record === 'COMMITTED' && (data[owner] !== true || (refers && !baseData));
}

/**
 * Of a revision only matters who still has the current one: a stale one stays stale. Without the numbers themselves there
 * are far fewer states.
 */
function keyOf({ uploaders, baseRevision, revision, ...rest }: State): string {
  const { baseDeleterSaw, baseUndoSaw, deleterSaw, undoSaw, ...plain } = rest;
  const fresh = [baseDeleterSaw, baseUndoSaw].map((saw) => saw === baseRevision);
  fresh.push(deleterSaw === revision, undoSaw === revision);
  let key = '';
  for (const value of [...Object.values(plain), ...fresh]) key += `${short(value)},`;
  for (const { at, refers, lease, saw } of uploaders) {
    key += `${at},${short(refers)},${short(lease)},${short(saw === baseRevision)},`;
  }
  return key;
}

function short(value: unknown): string {
  return typeof value === 'boolean' ? (value ? '1' : '') : String(value);
}

function pathTo(key: string, seen: Map<string, { from: string | undefined; step: string }>): string[] {
  const path: string[] = [];
  for (let at: string | undefined = key; at !== undefined;) {
    const entry = seen.get(at);
    path.unshift(entry?.step ?? '?');
    at = entry?.from;
  }
  return path;
}

type Steps = Generator<[string, State]>;

function* steps(state: State, variant: Variant, cast: readonly Actor[]): Steps {
  yield* uploader(state, 0, variant);
  yield* baseDeleter(state, variant);
  if (cast.includes('second uploader')) yield* uploader(state, 1, variant);
  if (cast.includes('collector')) yield* collector(state);
  if (cast.includes('base undo')) yield* baseUndo(state);
  if (cast.includes('deleter')) yield* deleter(state);
  if (cast.includes('undo')) yield* undo(state);
  if (cast.includes('restorer')) yield* restorer(state);
}

/** Hold the base, write the data, hold the base again, commit, let go. */
function* uploader(state: State, index: 0 | 1, variant: Variant): Steps {
  const me = state.uploaders[index];
  const name = `uploader ${index + 1}`;
  const to = (at: Uploader['at'], own: Partial<Uploader> = {}, change: Partial<State> = {}): State => {
    const next = { ...me, at, ...own };
    return { ...state, ...change, uploaders: index === 0 ? [next, state.uploaders[1]] : [state.uploaders[0], next] };
  };
  if (me.lease && ['look', 'touch', 'write', 'renew'].includes(me.at)) {
    yield [`the lease of ${name} lapses`, to(me.at, { lease: false })];
  }
  const looked = variant.leaseFirst ? 'commit' : 'renew';
  switch (me.at) {
    case 'start':
      if (variant.leaseFirst) yield [`${name} writes its lease`, to('look', { lease: true })];
      else if (state.base === 'COMMITTED') yield [`${name} reads COMMITTED`, to('look', { refers: true })];
      break;
    case 'look':
      if (!variant.leaseFirst) yield [`${name} writes its lease`, to('write', { lease: true })];
      else if (state.base === 'COMMITTED') yield [`${name} may refer`, to('write', { refers: true })];
      else if (state.base === 'DELETING' && !variant.touches) {
        yield [`${name} refers to a marked base`, to('write', { refers: true })];
      } else if (state.base === 'DELETING') {
        yield [`${name} sees a marked base`, to('touch', { saw: state.baseRevision })];
      } else yield [`${name} may not refer`, to('write', { refers: false, lease: false })];
      break;
    case 'touch':
      if (me.saw !== state.baseRevision) yield [`${name} looks again`, to('look', { saw: -1 })];
      else {
        const change = { baseRevision: state.baseRevision + 1 };
        yield [`${name} changes the base's record`, to('write', { refers: true, saw: -1 }, change)];
      }
      break;
    case 'write': {
      const data: State['data'] = index === 0 ? [true, state.data[1]] : [state.data[0], true];
      const again = variant.leaseFirst ? 'renew' : 'check';
      const next = me.refers && variant.renews ? again : 'commit';
      yield [`${name} writes its data`, to(next, variant.letsGoLast ? {} : { lease: false }, { data })];
      break;
    }
    case 'renew':
      yield [
        `${name} takes its lease again`,
        to(variant.leaseFirst ? 'check' : 'commit', { lease: variant.letsGoLast }),
      ];
      break;
    case 'check':
      if (state.base === 'COMMITTED' || (state.base === 'DELETING' && !variant.touches)) {
        yield [`${name} looked again`, to(looked)];
      } else if (state.base === 'DELETING') {
        yield [`${name} sees the base marked`, to('retouch', { saw: state.baseRevision })];
      } else yield [`${name} fails: the base is gone`, to('end', { refers: false })];
      break;
    case 'retouch':
      if (me.saw !== state.baseRevision) yield [`${name} looks again`, to('check', { saw: -1 })];
      else {
        const change = { baseRevision: state.baseRevision + 1 };
        yield [`${name} changes the base's record`, to(looked, { saw: -1 }, change)];
      }
      break;
    case 'commit': {
      const revision = state.revision + 1;
      const change: Partial<State> = { record: 'COMMITTED', revision, owner: index, refers: me.refers };
      if (state.record === 'absent') yield [`${name} commits`, to('release', {}, change)];
      else yield [`${name} finds the record taken`, to('release')];
      break;
    }
    case 'release':
      yield [`${name} lets go`, to('end', { lease: false })];
      break;
    default:
  }
}

/** Claim the unfinished backup as ABORTED, remove its data. */
function* collector(state: State): Steps {
  if (state.collector === 0 && state.record === 'absent') {
    const change = { record: 'ABORTED' as const, revision: state.revision + 1, collector: 1 };
    yield ['collector claims ABORTED', { ...state, ...change }];
  }
  if (state.collector === 1) yield ['collector removes the data', { ...state, data: [false, false], collector: END }];
}

/** Mark, read the record, list the leases, read the other records, pass PURGING, remove the data, mark DELETED. */
function* baseDeleter(state: State, variant: Variant): Steps {
  const at = (pc: number, change: Partial<State> = {}): State => ({ ...state, ...change, baseDeleter: pc });
  const write = (base: BackupState): Partial<State> => ({ base, baseRevision: state.baseRevision + 1 });
  const again = at(2, { baseDeleterSaw: -1 });
  const leased = state.uploaders.some(({ lease }) => lease);
  const counts = variant.markedCount ? ['COMMITTED', 'DELETING', 'PURGING'] : ['COMMITTED'];
  const referred = variant.readsRecords && state.refers && counts.includes(state.record);
  const looks = [
    leased ? (['deleter finds a lease', again] as const) : (['deleter finds no lease', undefined] as const),
    referred ? (['deleter finds a reference', again] as const) : (['deleter finds no reference', undefined] as const),
  ] as const;
  const [firstLook, secondLook] = variant.leasesFirst ? looks : ([looks[1], looks[0]] as const);
  switch (state.baseDeleter) {
    case 0:
      if (state.base === 'COMMITTED') yield ['deleter reads COMMITTED', at(1, { baseDeleterSaw: state.baseRevision })];
      break;
    case 1:
      if (state.baseDeleterSaw !== state.baseRevision) yield ['deleter was overtaken', at(END)];
      else yield ['deleter marks the base', at(2, { ...write('DELETING'), baseDeleterSaw: -1 })];
      break;
    case 2:
      if (state.base === 'DELETING') yield ['deleter reads DELETING', at(3, { baseDeleterSaw: state.baseRevision })];
      else yield ['deleter finds it taken back', at(END)];
      break;
    case 3:
      yield [firstLook[0], firstLook[1] ?? at(4)];
      break;
    case 4:
      yield [secondLook[0], secondLook[1] ?? at(5)];
      break;
    case 5:
      if (state.baseDeleterSaw !== state.baseRevision) yield ['deleter looks again', again];
      else yield ['deleter passes PURGING', at(6, { ...write('PURGING'), baseDeleterSaw: -1 })];
      break;
    case 6:
      yield ["deleter removes the base's data", at(7, { baseData: false })];
      break;
    case 7:
      yield ['deleter marks DELETED', at(END, write('DELETED'))];
      break;
    default:
  }
}

function* baseUndo(state: State): Steps {
  if (state.baseUndo === 0 && state.base === 'DELETING') {
    yield ['undo reads the marked base', { ...state, baseUndo: 1, baseUndoSaw: state.baseRevision }];
  }
  if (state.baseUndo !== 1) return;
  const done = { ...state, baseUndo: END, baseUndoSaw: -1 };
  if (state.baseUndoSaw !== state.baseRevision) yield ['undo comes too late', done];
  else yield ['undo takes the base back', { ...done, base: 'COMMITTED', baseRevision: state.baseRevision + 1 }];
}

/** The same for the new backup, which nothing refers to; its leases are a restorer's. */
function* deleter(state: State): Steps {
  const at = (pc: number, change: Partial<State> = {}): State => ({ ...state, ...change, deleter: pc });
  const write = (record: BackupState): Partial<State> => ({ record, revision: state.revision + 1 });
  if (state.deleter === 0 && state.record === 'COMMITTED') yield ['the backup is marked', at(1, write('DELETING'))];
  if (state.deleter === 1 && state.record === 'DELETING' && !state.restoreLease) {
    yield ['no restore reads it', at(2, { deleterSaw: state.revision })];
  }
  if (state.deleter === 2) {
    if (state.deleterSaw !== state.revision) yield ['it was taken back', at(END)];
    else yield ['the backup passes PURGING', at(3, write('PURGING'))];
  }
  if (state.deleter === 3) yield ["the backup's data is removed", at(4, { data: [false, false] })];
  if (state.deleter === 4) yield ['the backup is DELETED', at(END, write('DELETED'))];
}

function* undo(state: State): Steps {
  if (state.undo === 0 && state.record === 'DELETING') {
    yield ['undo reads the marked backup', { ...state, undo: 1, undoSaw: state.revision }];
  }
  if (state.undo !== 1) return;
  const done = { ...state, undo: END, undoSaw: -1 };
  if (state.undoSaw !== state.revision) yield ['its undo comes too late', done];
  else yield ['the backup is taken back', { ...done, record: 'COMMITTED', revision: state.revision + 1 }];
}

/** Lease on the new backup alone: its record speaks for what it refers to. */
function* restorer(state: State): Steps {
  const at = (pc: number, change: Partial<State> = {}): State => ({ ...state, ...change, restorer: pc });
  if (state.restorer === 0) yield ['restorer writes its lease', at(1, { restoreLease: true })];
  if (state.restorer === 1) {
    const begun = { restores: state.owner, restoreRefers: state.refers };
    if (state.record === 'COMMITTED') yield ['restorer begins', at(2, begun)];
    else yield ['restorer finds no backup', at(END, { restoreLease: false })];
  }
  if (state.restorer === 2) {
    const lost = state.data[state.restores] !== true || (state.restoreRefers && !state.baseData);
    yield ['restorer reads the data', at(3, { lost })];
  }
  if (state.restorer === 3) yield ['restorer lets go', at(END, { restoreLease: false })];
}
