/**
 * A model of the commit protocol, explored exhaustively: every interleaving of the actors below, each of which may stop
 * for ever before any of its steps (a killed worker, or a zombie that goes on much later).
 *
 * Actors: two uploaders of one backup, two collectors of unfinished backups, a deleter, an undo, a restorer, a verifier.
 * The store is S3's contract: single keys, reads after writes, compare-and-set by ETag.
 */
import { mayFollow, type BackupState } from '../../src/domain/backup.ts';

/** Ways to get the protocol wrong. The checker has to refute each of them. */
export const BROKEN_VARIANTS = {
  'data goes while DELETING, which can be taken back': { purging: false },
  'a collector removes data without claiming the record first': { claimAborted: false },
  'data goes before the record says so': { dataFirst: true },
  'leases are looked at before the backup is marked': { leasesFirst: true },
  'the record is deleted in the end, so that its key is free again': { removeRecord: true },
} as const satisfies Record<string, Partial<Variant>>;

export interface Variant {
  readonly purging: boolean;
  readonly claimAborted: boolean;
  readonly dataFirst: boolean;
  readonly leasesFirst: boolean;
  readonly removeRecord: boolean;
}

export const PROTOCOL: Variant = {
  purging: true,
  claimAborted: true,
  dataFirst: false,
  leasesFirst: false,
  removeRecord: false,
};

export interface Verdict {
  readonly states: number;
  /** The shortest run into a state that must not be, or `undefined` when there is none. */
  readonly violation: readonly string[] | undefined;
}

/** Where each actor is, and what it remembers. Plain numbers and strings, so that a state is its own key. */
interface State {
  record: BackupState | 'absent';
  /** Uploader whose data the record speaks of. */
  owner: number;
  /** Stands for the ETag: every write gives a new one. */
  revision: number;
  data: [boolean, boolean];
  lease: boolean;
  uploader: [number, number];
  collector: [number, number];
  deleter: number;
  deleterSaw: number;
  undo: number;
  undoSaw: number;
  /** The backup was found damaged when it was marked for removal. */
  was: boolean;
  verifier: number;
  restorer: number;
  restores: number;
  lost: boolean;
}

const START: State = {
  record: 'absent',
  owner: -1,
  revision: 0,
  data: [false, false],
  lease: false,
  uploader: [0, 0],
  collector: [0, 0],
  deleter: 0,
  deleterSaw: -1,
  undo: 0,
  undoSaw: -1,
  was: false,
  verifier: 0,
  restorer: 0,
  restores: -1,
  lost: false,
};

const END = 99;

/** Explore all states breadth first. */
export function check(variant: Variant): Verdict {
  const seen = new Map<string, { from: string | undefined; step: string }>();
  const first = JSON.stringify(START);
  seen.set(first, { from: undefined, step: 'start' });
  let frontier = [first];
  while (frontier.length > 0) {
    const next: string[] = [];
    for (const key of frontier) {
      const state = JSON.parse(key) as State;
      if (isWrong(state)) return { states: seen.size, violation: pathTo(key, seen) };
      for (const [step, after] of steps(state, variant)) {
        const after_ = JSON.stringify(after);
        if (seen.has(after_)) continue;
        seen.set(after_, { from: key, step });
        next.push(after_);
      }
    }
    frontier = next;
  }
  return { states: seen.size, violation: undefined };
}

/** 1. What is listed has its data. 2. A restore that began finds its data. */
function isWrong({ record, owner, data, lost }: State): boolean {
  return lost || (isListed(record) && data[owner] !== true);
}

function isListed(record: State['record']): boolean {
  return record === 'COMMITTED' || record === 'CORRUPT';
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

function* steps(state: State, variant: Variant): Generator<[string, State]> {
  for (const index of [0, 1] as const) {
    yield* uploader(state, index);
    yield* collector(state, index, variant);
  }
  yield* deleter(state, variant);
  yield* undo(state);
  yield* restorer(state);
  yield* verifier(state);
}

/** Write the data, look at it again, claim the record. */
function* uploader(state: State, index: 0 | 1): Generator<[string, State]> {
  const name = `uploader ${index + 1}`;
  const at = (pc: number, change: Partial<State> = {}): State => ({
    ...state,
    ...change,
    uploader: replace(state.uploader, index, pc),
  });
  switch (state.uploader[index]) {
    case 0:
      yield [`${name} writes its data`, at(1, { data: replace(state.data, index, true) })];
      break;
    case 1:
      if (state.data[index]) yield [`${name} verifies its data`, at(2)];
      else yield [`${name} misses its data and fails`, at(END)];
      break;
    case 2:
      if (state.record === 'absent') yield [`${name} commits`, at(END, write(state, 'COMMITTED', index))];
      else yield [`${name} finds the record taken`, at(END)];
      break;
    default:
  }
}

/** See that there is no record, claim it as ABORTED, remove the data of all attempts. */
function* collector(state: State, index: 0 | 1, variant: Variant): Generator<[string, State]> {
  const name = `collector ${index + 1}`;
  const at = (pc: number, change: Partial<State> = {}): State => ({
    ...state,
    ...change,
    collector: replace(state.collector, index, pc),
  });
  switch (state.collector[index]) {
    case 0:
      if (state.record === 'absent') yield [`${name} sees no record`, at(variant.claimAborted ? 1 : 2)];
      break;
    case 1:
      if (state.record === 'absent') yield [`${name} claims ABORTED`, at(2, write(state, 'ABORTED', -1))];
      else yield [`${name} finds ${state.record}`, at(state.record === 'ABORTED' ? 2 : END)];
      break;
    case 2:
      yield [`${name} removes the data of uploader 1`, at(3, { data: [false, state.data[1]] })];
      break;
    case 3:
      yield [`${name} removes the data of uploader 2`, at(END, { data: [state.data[0], false] })];
      break;
    default:
  }
}

/** COMMITTED or CORRUPT -> DELETING, look for leases, -> PURGING, remove the data, -> DELETED. */
function* deleter(state: State, variant: Variant): Generator<[string, State]> {
  const at = (pc: number, change: Partial<State> = {}): State => ({ ...state, ...change, deleter: pc });
  switch (state.deleter) {
    case 0:
      if (!isListed(state.record)) break;
      if (variant.leasesFirst && state.lease) break;
      yield [`deleter reads ${state.record}`, at(variant.dataFirst ? 4 : 1, { deleterSaw: state.revision })];
      break;
    case 1:
      yield state.revision === state.deleterSaw
        ? [
            'deleter marks DELETING',
            at(2, { ...write(state, 'DELETING', state.owner), was: state.record === 'CORRUPT' }),
          ]
        : ['deleter was overtaken', at(END)];
      break;
    case 2:
      // The record is read before the leases: what is compared and set later is what was seen when there were none.
      if (state.record !== 'DELETING') yield ['deleter finds it taken back', at(END)];
      else if (variant.leasesFirst || !state.lease) {
        yield ['deleter finds no lease', at(variant.purging ? 3 : 4, { deleterSaw: state.revision })];
      }
      break;
    case 3:
      yield state.revision === state.deleterSaw
        ? ['deleter passes PURGING', at(4, write(state, 'PURGING', state.owner))]
        : ['deleter was taken back', at(END)];
      break;
    case 4:
      yield ['deleter removes the data of uploader 1', at(5, { data: [false, state.data[1]] })];
      break;
    case 5:
      yield ['deleter removes the data of uploader 2', at(6, { data: [state.data[0], false] })];
      break;
    case 6:
      yield variant.removeRecord
        ? ['deleter deletes the record', at(END, { ...write(state, 'DELETED', -1), record: 'absent' })]
        : ['deleter marks DELETED', at(END, write(state, 'DELETED', state.owner))];
      break;
    default:
  }
}

/** DELETING -> what it was. */
function* undo(state: State): Generator<[string, State]> {
  if (state.undo === 0 && state.record === 'DELETING') {
    yield ['undo reads DELETING', { ...state, undo: 1, undoSaw: state.revision }];
  }
  if (state.undo === 1) {
    yield state.revision === state.undoSaw
      ? [
          'undo takes it back',
          { ...state, ...write(state, state.was ? 'CORRUPT' : 'COMMITTED', state.owner), undo: END },
        ]
      : ['undo comes too late', { ...state, undo: END }];
  }
}

/** Write a lease, then read the record; read the data; let the lease go. */
function* restorer(state: State): Generator<[string, State]> {
  const at = (pc: number, change: Partial<State> = {}): State => ({ ...state, ...change, restorer: pc });
  switch (state.restorer) {
    case 0:
      yield ['restorer writes its lease', at(1, { lease: true })];
      break;
    case 1:
      // Of a damaged one when it is told to.
      if (isListed(state.record)) yield ['restorer begins', at(2, { restores: state.owner })];
      else yield ['restorer finds no backup', at(END, { lease: false })];
      break;
    case 2:
      yield ['restorer reads the data', at(3, { lost: state.data[state.restores] !== true })];
      break;
    case 3:
      yield ['restorer lets go', at(END, { lease: false })];
      break;
    default:
  }
}

/**
 * Find damage, and then none. A compare-and-set that was overtaken changes nothing, so reading and writing are one step.
 */
function* verifier(state: State): Generator<[string, State]> {
  if (state.verifier === 0 && state.record === 'COMMITTED') {
    yield ['verifier finds damage', { ...state, ...write(state, 'CORRUPT', state.owner), verifier: 1 }];
  }
  if (state.verifier === 1 && state.record === 'CORRUPT') {
    yield ['verifier finds it whole', { ...state, ...write(state, 'COMMITTED', state.owner), verifier: END }];
  }
}

function write(state: State, record: BackupState, owner: number): Partial<State> {
  return { record, owner, revision: state.revision + 1 };
}

function replace<T>([first, second]: [T, T], index: 0 | 1, value: T): [T, T] {
  return index === 0 ? [value, second] : [first, value];
}

/** Every change of the record that the protocol makes in any run. To be compared with the code's own table. */
export function recordChanges(variant: Variant): Set<string> {
  const changes = new Set<string>();
  const seen = new Set<string>([JSON.stringify(START)]);
  const stack = [START];
  for (let state = stack.pop(); state !== undefined; state = stack.pop()) {
    for (const [, after] of steps(state, variant)) {
      if (after.record !== state.record) changes.add(`${state.record} -> ${after.record}`);
      const key = JSON.stringify(after);
      if (seen.has(key)) continue;
      seen.add(key);
      stack.push(after);
    }
  }
  return changes;
}

/** The code's table of transitions, in the same form. */
export function allowedChanges(states: readonly BackupState[]): Set<string> {
  const changes = new Set<string>();
  for (const from of [undefined, ...states]) {
    for (const to of states) if (mayFollow(from, to)) changes.add(`${from ?? 'absent'} -> ${to}`);
  }
  return changes;
}
