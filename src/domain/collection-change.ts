/** Whether a collection is still the one that a backup began to copy. */
import { canonicalJson } from './canonical-json.ts';
import type { CollectionPlacement } from './topology.ts';

type Json = Readonly<Record<string, unknown>>;

/** A collection as it was seen at one moment. */
export interface CollectionLook {
  /** `config` of `GET /collections/{c}`. */
  readonly config: { readonly params: Json };
  /** `payload_schema` of the same. */
  readonly payload_schema: Json;
  readonly placement: CollectionPlacement;
  /** Qdrant's own id of it, where it tells. */
  readonly id?: string | undefined;
}

/**
 * What differs in what a restore relies on: its parameters, its payload indexes, its shards and their keys, and whether it
 * is the same collection at all. What only steers how the server works (HNSW, optimizers, WAL, quantization, strict mode,
 * metadata) may change while shards are copied.
 *
 * @returns words for a message; empty when nothing does
 */
export function collectionChanges(before: CollectionLook, after: CollectionLook): string[] {
  const [params, paramsNow] = [before.config.params, after.config.params];
  const names = [...new Set([...Object.keys(params), ...Object.keys(paramsNow)])].sort();
  return [
    ...(before.id !== undefined && after.id !== undefined && before.id !== after.id
      ? ['it was deleted and made anew']
      : []),
    ...names.filter((name) => !equal(params[name], paramsNow[name])).map((name) => `its parameter ${name}`),
    ...(equal(schemaOf(before), schemaOf(after)) ? [] : ['its payload indexes']),
    ...(equal(shardsOf(before), shardsOf(after)) ? [] : ['its shards or their keys']),
  ];
}

function equal(a: unknown, b: unknown): boolean {
  return canonicalJson(a ?? null) === canonicalJson(b ?? null);
}

/** Without the number of points that each index holds, which writes change. */
function schemaOf({ payload_schema: schema }: CollectionLook): unknown {
  return Object.entries(schema)
    .sort(([a], [b]) => (a < b ? -1 : 1))
    .map(([field, entry]) => {
      const { data_type: type, params } = (entry ?? {}) as { data_type?: unknown; params?: unknown };
      return [field, type ?? null, params ?? null];
    });
}

function shardsOf({ placement }: CollectionLook): unknown {
  return placement.shards.map(({ shard, shardKey = null }) => [shard, shardKey]);
}
