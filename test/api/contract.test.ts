/**
 * The OpenAPI document and the guards say the same: what the document allows is not refused with 400, and what it does
 * not allow is. What no schema can say (422) is told apart from that.
 */
import { Ajv2020 } from 'ajv/dist/2020.js';
import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { BACKUP, documentOf, routesOf, standInApp } from './stand-in.ts';

interface Schema {
  readonly $ref?: string;
  readonly type?: string;
  readonly enum?: readonly unknown[];
  readonly properties?: Record<string, Schema>;
  readonly required?: readonly string[];
  readonly additionalProperties?: Schema | boolean;
  readonly propertyNames?: Schema;
  readonly items?: Schema;
  readonly pattern?: string;
  readonly maxLength?: number;
  readonly minimum?: number;
  readonly maximum?: number;
  readonly minItems?: number;
}

const { app, send } = standInApp();
const document = await documentOf(app);
const ajv = new Ajv2020({ strict: false });
ajv.addSchema({ $id: 'document', ...document });
const bodies = routesOf(document).filter(({ body }) => body !== undefined);

/** Values that are right by themselves. What goes together is for the validator to say. */
function right(schema: Schema): fc.Arbitrary<unknown> {
  if (schema.$ref !== undefined)
    return right(document.components.schemas[schema.$ref.split('/').at(-1) ?? ''] as Schema);
  if (schema.enum !== undefined) return fc.constantFrom(...schema.enum);
  switch (schema.type) {
    case 'boolean':
      return fc.boolean();
    case 'integer':
      return fc.integer({ min: schema.minimum ?? 0, max: schema.maximum ?? 0 });
    case 'number':
      return fc.double({ min: schema.minimum ?? 0, max: schema.maximum ?? 0, noNaN: true });
    case 'array':
      return fc.uniqueArray(right(schema.items ?? {}), {
        minLength: schema.minItems ?? 0,
        maxLength: Math.max(schema.minItems ?? 0, 3),
        selector: (item) => JSON.stringify(item),
      });
    case 'object':
      return object(schema);
    default:
      return matching(schema);
  }
}

function matching({ pattern = '^.*$', maxLength = 1000 }: Schema): fc.Arbitrary<string> {
  const free = pattern.replace('(?!(?:__proto__|prototype|constructor)$)', '').replaceAll(String.raw`\/`, '/');
  return fc.stringMatching(new RegExp(free)).filter((text) => text.length <= maxLength);
}

function object(schema: Schema): fc.Arbitrary<unknown> {
  const { properties, required = [], additionalProperties } = schema;
  if (properties === undefined) {
    const values = typeof additionalProperties === 'object' ? right(additionalProperties) : fc.constant('');
    return fc.dictionary(matching(schema.propertyNames ?? {}), values, { maxKeys: 3, noNullPrototype: true });
  }
  const names = Object.keys(properties);
  return fc
    .subarray(names, { maxLength: Math.min(names.length, 6) })
    .chain((some) =>
      fc.record(
        Object.fromEntries([...new Set([...some, ...required])].map((name) => [name, right(properties[name] ?? {})])),
        { noNullPrototype: true },
      ),
    );
}

const wrong = fc.constantFrom<unknown>(
  ...[null, '', ' ', 'é😀', 'x'.repeat(300), 'A', 'a--b', '1.2.3', '0.0.0.0/33', '::/0', '-1', '@daily', '../..'],
  ...['__proto__', 'constructor', -1, 0, 1.5, 65, 1e9, 1e300, true, [], [''], ['a', 'a'], [[]], [{}], {}, { a: 1 }],
  ...[{ a: 'b' }, { '': '' }, { prototype: 'x' }, { 'a/b': 'c' }, { inPlace: true }],
);

/** One place of a value is made something else, or a member is added or taken away. */
function changed(value: unknown): fc.Arbitrary<unknown> {
  if (typeof value !== 'object' || value === null) return wrong;
  const keys = Object.keys(value);
  const inner = keys.map((key) =>
    changed((value as Record<string, unknown>)[key]).map((item) =>
      Array.isArray(value)
        ? value.map((old: unknown, index) => (String(index) === key ? item : old))
        : { ...value, [key]: item },
    ),
  );
  const less = keys.map((key) =>
    fc.constant(Object.fromEntries(Object.entries(value).filter(([name]) => name !== key))),
  );
  const more = wrong.map((item) =>
    Array.isArray(value) ? [...(value as unknown[]), item] : { ...value, surprise: item },
  );
  return fc.oneof(
    wrong,
    more,
    ...(Array.isArray(value) ? [] : less),
    ...inner.map((arbitrary) => ({ arbitrary, weight: 2 })),
  );
}

describe.each(bodies.map((route) => [`${route.method} ${route.path}`, route] as const))(
  '%s',
  (_, { method, path, body }) => {
    const at = path.replaceAll(/\{(\w+)\}/g, (_part, name: string) => (name === 'backup' ? BACKUP : 'docs'));
    const validate = ajv.compile(resolved(body as Schema));
    const values = right(body as Schema);

    test('takes what the document allows, and refuses the rest with 400', async () => {
      const tally = { allowed: 0, refused: 0, impossible: 0 };
      await fc.assert(
        fc.asyncProperty(fc.oneof(values, values.chain(changed)), async (value) => {
          const { status, text } = await send(method, at, JSON.stringify(value));
          const allowed = validate(JSON.parse(JSON.stringify(value)));
          tally[status === 400 ? 'refused' : status === 422 ? 'impossible' : 'allowed'] += 1;
          expect({ isRefused: status === 400, text }).toEqual({ isRefused: !allowed, text });
        }),
        { numRuns: 60 },
      );
      if (process.env['FLEET_TEST_VERBOSE'] !== undefined) console.log(path, tally);
      expect(tally.refused).toBeGreaterThan(0);
      expect(tally.allowed + tally.impossible).toBeGreaterThan(0);
    });
  },
);

function resolved(schema: Schema): object {
  return schema.$ref === undefined ? schema : { $ref: schema.$ref.replace('#', 'document#') };
}

test('empty texts, an empty policy and the like are refused by the document as by the guards', async () => {
  const cases: [path: string, body: object][] = [
    ...['vpcId', 'cidr', 'eksCluster', 'kubernetesVersion', 'instanceType', 'secretsEncryptionKeyArn'].map(
      (field): [string, object] => ['/v1/clusters', { name: 'docs', provider: 'aws', aws: { [field]: '' } }],
    ),
    ['/v1/clusters', { name: 'docs', provider: 'aws', aws: { roles: { cluster: '' } } }],
    ['/v1/clusters/docs/retention', { policy: {} }],
    ['/v1/clusters', { name: 'docs', nodes: null }],
  ];
  for (const [path, body] of cases) {
    const route = bodies.find((one) => one.method === 'POST' && one.path.replace('{cluster}', 'docs') === path);
    expect(ajv.compile(resolved(route?.body as Schema))(body)).toBe(false);
    expect((await send('POST', path, JSON.stringify(body))).status).toBe(400);
  }
});
