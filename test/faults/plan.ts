/** What happens in one run of the campaign: all of it follows from the seed. */
import type { ProcessFault } from '../support/process-faults.ts';
import { qdrantError, s3Error, type Fault, type Place as At, type Rule } from '../support/fault-proxy.ts';

export type Operation = 'backup' | 'incremental' | 'restore' | 'relay' | 'sweep' | 'verify';

/** Another operation that begins in the middle of the first. */
export type Company =
  | 'second backup'
  | 'backup of the target'
  | 'restore into the source'
  | 'second restore'
  | 'sweep beside the backup'
  | 'sweep beside the restore';

/** A request of an operation, and what of it is guarded by a checksum. */
export interface Place {
  readonly on: 's3' | 'pull' | 'node';
  readonly method: string;
  readonly path: RegExp;
  readonly flips?: 'request' | 'response';
}

export interface Run {
  readonly seed: number;
  readonly operation: Operation;
  readonly rules: readonly { readonly place: Place; readonly rule: Rule }[];
  /** Happens when a request is met at the place, before it or in the middle of its body. */
  readonly event?: Meeting & ({ readonly process: ProcessFault } | { readonly company: Company });
}

interface Meeting {
  readonly place: Place;
  readonly skip: number;
  readonly inside?: { readonly side: 'request' | 'response'; readonly at: At };
}

/** Numbers from 0 to 1, the same for the same seed (mulberry32). */
class Dice {
  #state: number;
  constructor(seed: number) {
    this.#state = seed * 0x9e3779b1;
  }
  roll(): number {
    this.#state = (this.#state + 0x6d2b79f5) | 0;
    let mixed = Math.imul(this.#state ^ (this.#state >>> 15), 1 | this.#state);
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed;
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
  }
  upTo(limit: number): number {
    return Math.floor(this.roll() * limit);
  }
  pick<T>(items: readonly T[]): T {
    return items[this.upTo(items.length)] as T;
  }
}

const BACKUP: readonly Place[] = [
  { on: 's3', method: 'HEAD', path: /^\/[^/]+\/?(\?|$)/ },
  { on: 's3', method: 'PUT', path: /intent\.json/, flips: 'request' },
  { on: 's3', method: 'PUT', path: /plan\.json/, flips: 'request' },
  { on: 's3', method: 'GET', path: /plan\.json/, flips: 'response' },
  { on: 's3', method: 'GET', path: /[?&]uploads/ },
  { on: 's3', method: 'POST', path: /[?&]uploads/ },
  { on: 's3', method: 'PUT', path: /partNumber=/, flips: 'request' },
  { on: 's3', method: 'PUT', path: /partNumber=/, flips: 'request' },
  { on: 's3', method: 'POST', path: /uploadId=/, flips: 'request' },
  { on: 's3', method: 'HEAD', path: /\.snapshot/ },
  { on: 's3', method: 'PUT', path: /manifest\.json/, flips: 'request' },
  { on: 's3', method: 'PUT', path: /commit\.json/, flips: 'request' },
  { on: 'node', method: 'GET', path: /^\/cluster/ },
  { on: 'node', method: 'GET', path: /^\/metrics/ },
  { on: 'node', method: 'GET', path: /^\/collections(\?|$)/ },
  { on: 'node', method: 'GET', path: /^\/collections\/\w+\/cluster/ },
  { on: 'node', method: 'POST', path: /\/snapshots\?/ },
  { on: 'node', method: 'GET', path: /\/snapshots\/[^?]+/, flips: 'response' },
  { on: 'node', method: 'GET', path: /\/snapshots\/[^?]+/, flips: 'response' },
  { on: 'node', method: 'DELETE', path: /\/snapshots\// },
];

const RESTORE: readonly Place[] = [
  { on: 's3', method: 'PUT', path: /\/leases\// },
  { on: 's3', method: 'GET', path: /commit\.json/, flips: 'response' },
  { on: 's3', method: 'GET', path: /manifest\.json/, flips: 'response' },
  { on: 's3', method: 'POST', path: /[?&]delete/ },
  { on: 'node', method: 'PUT', path: /^\/collections\/\w+\?/ },
  { on: 'node', method: 'PUT', path: /\/index\?/ },
  { on: 'node', method: 'PUT', path: /\/recover/ },
  { on: 'node', method: 'PUT', path: /\/recover/ },
  { on: 'node', method: 'GET', path: /^\/metrics/ },
  { on: 'node', method: 'GET', path: /^\/collections\/\w+\/cluster/ },
  { on: 'node', method: 'POST', path: /\/aliases/ },
];

const PULL: Place = { on: 'pull', method: 'GET', path: /\.snapshot/, flips: 'response' };
/** A worker reads shards by range for the nodes. Not flipped: the node refuses the whole, which `PULL` tells. */
const RANGE: Place = { on: 's3', method: 'GET', path: /\.snapshot/, flips: 'response' };

const PLACES: Readonly<Record<Operation, readonly Place[]>> = {
  backup: BACKUP,
  incremental: [
    ...BACKUP.filter(({ method }) => method !== 'HEAD'),
    { on: 's3', method: 'PUT', path: /\.recipe/ },
    { on: 's3', method: 'PUT', path: /bases\.json/, flips: 'request' },
    { on: 's3', method: 'PUT', path: /\/leases\// },
  ],
  restore: [...RESTORE, PULL, PULL],
  relay: [...RESTORE, RANGE, RANGE],
  sweep: [
    { on: 's3', method: 'GET', path: /list-type=2/ },
    { on: 's3', method: 'GET', path: /commit\.json/, flips: 'response' },
    { on: 's3', method: 'PUT', path: /commit\.json/, flips: 'request' },
    { on: 's3', method: 'GET', path: /[?&]uploads/ },
    { on: 's3', method: 'POST', path: /[?&]delete/, flips: 'request' },
  ],
  verify: [
    { on: 's3', method: 'PUT', path: /\/leases\// },
    { on: 's3', method: 'GET', path: /commit\.json/, flips: 'response' },
    { on: 's3', method: 'GET', path: /manifest\.json/, flips: 'response' },
    { on: 's3', method: 'GET', path: /\.snapshot/ },
    { on: 's3', method: 'PUT', path: /attest\//, flips: 'request' },
  ],
};

const HTML: Fault = { kind: 'answer', status: 200, body: '<html>proxy login</html>', contentType: 'text/html' };
const SHARES = [0, 0.1, 0.5, 0.9, 1];

/** What may happen to a request at a place. */
function faultsOf({ on, method, path, flips }: Place, dice: Dice, long: boolean): Fault[] {
  const at = long ? { share: dice.pick(SHARES) } : { share: 0.5 };
  const speed = long ? dice.pick([3_000_000, 600_000]) : 3_000_000;
  const writes = method === 'PUT' || method === 'POST';
  const common: Fault[] = [
    { kind: 'drop-reply', by: 'fin' },
    { kind: 'drop-reply', by: 'rst' },
    { kind: 'cut', side: 'response', at, by: 'fin' },
    { kind: 'cut', side: 'response', at, by: 'rst' },
    { kind: 'length', by: 1 },
    { kind: 'length', by: -1 },
    { kind: 'slow', side: 'response', bytesPerSecond: speed },
  ];
  if (writes) {
    common.push({ kind: 'cut', side: 'request', at, by: 'fin' }, { kind: 'cut', side: 'request', at, by: 'rst' });
    common.push({ kind: 'slow', side: 'request', bytesPerSecond: speed });
  }
  if (flips !== undefined) {
    const flip: Fault = { kind: 'flip', side: flips, at, bit: 3 };
    common.push(flip, { ...flip, at: { share: 0.1 } }, { ...flip, at: { share: 0.9 }, bit: 0 });
  }
  if (long) common.push({ kind: 'stall', side: writes ? 'request' : 'response', at });
  if (on === 'node') common.push(qdrantError(500), qdrantError(503), qdrantError(403), HTML);
  else common.push(s3Error(500, 'InternalError'), s3Error(503, 'SlowDown'), s3Error(403, 'AccessDenied'));
  if (on === 's3')
    common.push(s3Error(400, 'ExpiredToken'), s3Error(404, method === 'GET' ? 'NoSuchKey' : 'NoSuchUpload'));
  if (on === 's3' && method === 'POST' && path.source.includes('uploadId')) common.push(s3Error(200, 'InternalError'));
  return common;
}

const NODE_READ: Place = { on: 'node', method: 'GET', path: /documents.*\/snapshots\/[^?]+/ };
const NODE_MAKE: Place = { on: 'node', method: 'POST', path: /\/snapshots\?/ };
const NODE_DELETE: Place = { on: 'node', method: 'DELETE', path: /\/snapshots\// };
const NODE_CREATE: Place = { on: 'node', method: 'PUT', path: /^\/collections\/\w+\?/ };
const NODE_RECOVER: Place = { on: 'node', method: 'PUT', path: /\/recover/ };
const PART: Place = { on: 's3', method: 'PUT', path: /partNumber=/ };
const BEGIN: Place = { on: 's3', method: 'POST', path: /[?&]uploads/ };
const COMPLETE: Place = { on: 's3', method: 'POST', path: /uploadId=/ };
const COMMIT: Place = { on: 's3', method: 'PUT', path: /commit\.json/ };
const RECIPE: Place = { on: 's3', method: 'PUT', path: /\.recipe/ };
const LEASE: Place = { on: 's3', method: 'PUT', path: /\/leases\// };
const ERASE: Place = { on: 's3', method: 'POST', path: /[?&]delete/ };

/** Processes that die, sleep or lose their files, and in the middle of what. */
const PROCESSES: readonly (readonly [Operation, ProcessFault, readonly Place[]])[] = [
  ['backup', 'worker killed', [PART, BEGIN, COMPLETE, COMMIT, NODE_MAKE, NODE_READ, NODE_DELETE]],
  ['backup', 'node killed', [NODE_MAKE, NODE_READ, PART, NODE_DELETE]],
  ['restore', 'worker killed', [LEASE, NODE_CREATE, NODE_RECOVER, PULL]],
  ['restore', 'node killed', [NODE_CREATE, NODE_RECOVER, PULL]],
  ['backup', 'snapshot vanished', [NODE_READ]],
  ['backup', 'worker asleep', [PART, BEGIN, COMPLETE, COMMIT]],
  ['backup', 'disk full', [NODE_MAKE]],
  ['restore', 'pod deleted', [NODE_RECOVER, PULL]],
  ['relay', 'worker killed', [RANGE, NODE_RECOVER]],
  ['sweep', 'worker killed', [COMMIT, ERASE]],
  ['restore', 'disk full', [NODE_RECOVER]],
  ['backup', 'pod deleted', [NODE_MAKE, NODE_READ]],
  ['restore', 'worker asleep', [NODE_RECOVER, PULL]],
  ['sweep', 'worker asleep', [COMMIT, ERASE]],
  ['relay', 'node killed', [RANGE, NODE_RECOVER]],
  ['incremental', 'worker killed', [COMMIT, NODE_MAKE, NODE_READ, RECIPE]],
  ['incremental', 'snapshot vanished', [NODE_READ]],
];

/** Who begins in the middle of whom, and when. */
const COMPANIES: readonly (readonly [Operation, Company, readonly Place[]])[] = [
  ['backup', 'second backup', [PART, NODE_MAKE, { on: 's3', method: 'PUT', path: /intent\.json/ }]],
  ['restore', 'backup of the target', [NODE_RECOVER, PULL]],
  ['restore', 'sweep beside the restore', [NODE_RECOVER, PULL]],
  ['backup', 'sweep beside the backup', [PART, COMMIT]],
  ['incremental', 'sweep beside the backup', [NODE_READ, RECIPE, COMMIT]],
  ['backup', 'restore into the source', [PART, NODE_READ]],
  ['restore', 'second restore', [NODE_RECOVER, PULL]],
];

const ANY: Place = { on: 's3', method: '', path: /./ };

/**
 * @param long With all kinds: requests that stand still, processes, operations beside each other. Even seeds break
 *   requests only; odd ones go through everything else in turn.
 */
export function plan(seed: number, long: boolean): Run {
  const dice = new Dice(seed);
  if (!long || seed % 2 === 0) return requests(seed, dice, long);
  const others = [...PROCESSES, ...COMPANIES];
  const turn = ((seed - 1) / 2) % (others.length + 1);
  const chosen = others[turn];
  if (chosen === undefined) return expiry(seed, dice);
  const [operation, what, places] = chosen;
  const place = dice.pick(places);
  const half = { at: { share: dice.pick([0.1, 0.5, 0.9]) } };
  const side =
    place === PART ? 'request' : place === PULL || place === RANGE || place === NODE_READ ? 'response' : undefined;
  const meeting = {
    place,
    // Others may be met only once.
    skip: [PART, NODE_READ, NODE_MAKE, RANGE].includes(place) ? dice.upTo(2) : 0,
    ...(side !== undefined && dice.roll() < 0.7 && { inside: { side, ...half } as const }),
  };
  const event = isCompany(what) ? { ...meeting, company: what } : { ...meeting, process: what };
  const more = 'process' in event && dice.roll() < 0.3 ? [rule(operation, dice, long)] : [];
  return { seed, operation, rules: more, event };
}

function isCompany(what: Company | ProcessFault): what is Company {
  return COMPANIES.some(([, company]) => company === what);
}

function requests(seed: number, dice: Dice, long: boolean): Run {
  const all = ['backup', 'backup', 'backup', 'restore', 'restore', 'sweep'] as const;
  const operation = dice.pick<Operation>(long ? [...all, 'incremental', 'incremental', 'relay', 'verify'] : all);
  return { seed, operation, rules: Array.from({ length: 1 + dice.upTo(3) }, () => rule(operation, dice, long)) };
}

function rule(operation: Operation, dice: Dice, long: boolean): Run['rules'][number] {
  const place = dice.pick(PLACES[operation]);
  const fault = dice.pick(faultsOf(place, dice, long));
  const often = long && dice.roll() < 0.1 ? 30 : 1 + dice.upTo(2);
  // Each one that stands still costs the time until somebody loses patience.
  const times = fault.kind === 'stall' ? 1 : often;
  return { place, rule: { fault, method: place.method, path: place.path, skip: dice.pick([0, 0, 0, 1, 2]), times } };
}

/** From some request on the store takes the credentials for expired, for a while. */
function expiry(seed: number, dice: Dice): Run {
  const operation = dice.pick<Operation>(['backup', 'backup', 'restore', 'relay', 'sweep', 'verify']);
  const rule = {
    fault: s3Error(400, 'ExpiredToken'),
    path: ANY.path,
    skip: 3 + dice.upTo(12),
    times: 5 + dice.upTo(20),
  };
  return { seed, operation, rules: [{ place: ANY, rule: { ...rule, name: 'credentials expired' } }] };
}
