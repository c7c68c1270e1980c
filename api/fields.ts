/** Fields of the OpenAPI document, made of the bounds and formats that the guards go by. */
import { z } from '@hono/zod-openapi';
import type { Format } from '../src/domain/input/formats.ts';
import type { Range } from '../src/domain/input/limits.ts';
import { QDRANT_SETTINGS, type Setting } from '../src/domain/qdrant-settings.ts';

export function text({ pattern, maxLength, example }: Format) {
  const field = z.string().max(maxLength).regex(pattern);
  return example === undefined ? field : field.openapi({ example });
}

export function integer({ min, max }: Range) {
  return z.int().min(min).max(max);
}

export function number({ min, max }: Range) {
  return z.number().min(min).max(max);
}

/** A list of different texts. */
export function texts(each: z.ZodType, { min, max }: Range) {
  return z.array(each).min(min).max(max).openapi({ uniqueItems: true });
}

/** A list of objects, which may be alike. */
export function list<T extends z.ZodType>(each: T, max: number) {
  return z.array(each).max(max);
}

/** A map of texts to texts. */
export function map(key: Format, value: Format, max: number) {
  // Of the keys the generator of the document says nothing by itself.
  const keys = { propertyNames: { pattern: key.pattern.source, maxLength: key.maxLength }, maxProperties: max };
  return z.record(text(key), text(value)).openapi(keys as object);
}

/** Every setting of Qdrant by its dotted name. */
export const settings = z
  .strictObject(Object.fromEntries(Object.entries(QDRANT_SETTINGS).map(([name, one]) => [name, setting(one)])))
  .openapi('QdrantSettings', {
    description:
      'Settings of Qdrant by dotted name; docs/qdrant-settings.md tells from which version on each is known.',
    example: { 'storage.wal.wal_capacity_mb': 64 },
  });

function setting(one: Setting): z.ZodType {
  switch (one.kind) {
    case 'boolean':
      return z.boolean().optional();
    case 'enum':
      return z.enum(one.values as [string, ...string[]]).optional();
    case 'integer':
      return integer(one).optional();
    default:
      return number(one).optional();
  }
}
