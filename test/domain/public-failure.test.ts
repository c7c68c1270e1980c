import fc from 'fast-check';
import { expect, test } from 'vitest';
import { publicFailure, withoutAddresses } from '../../src/domain/public-failure.ts';

test('an outage and what nobody foresaw show their title only', () => {
  const said = 'connect ECONNREFUSED 10.1.2.3:5432, user "fleet_admin"';
  for (const code of [
    'Internal',
    'CatalogUnavailable',
    'StoreDenied',
    'KubernetesDenied',
    'TypeError',
    '',
    '__proto__',
  ]) {
    const { detail } = publicFailure(code, said, 'operation "x"');
    expect(detail).not.toMatch(/ECONN|10\.|fleet_admin/);
    expect(detail).toContain('operation "x"');
  }
  expect(publicFailure('TypeError', said, 'operation "x"').code).toBe('Internal');
});

test('what is written for people stays, without addresses of hosts', () => {
  const told = publicFailure(
    'PodCannotStart',
    'Pod qdrant-1: image v9 does not pull. See http://10.0.0.4:6333/x.',
    'it',
  );
  expect(told).toMatchObject({
    code: 'PodCannotStart',
    detail: 'Pod qdrant-1: image v9 does not pull. See http://…/x.',
  });
  expect(withoutAddresses('allow 10.20.0.0/16, at 2026-11-21T03:00:00Z')).toBe(
    'allow 10.20.0.0/16, at 2026-11-21T03:00:00Z',
  );
  expect(
    withoutAddresses('at postgres://fleet:secret@db.internal:5432/x and qdrant-0.qdrant.ns.svc.cluster.local:6335'),
  ).toBe('at postgres://…/x and …');
  expect(withoutAddresses('dial tcp [fd00::1]:443: refused')).toBe('dial tcp …: refused');
});

test('no address of a host gets through, however it is wrapped', () => {
  const words = fc.stringMatching(/^[ a-zA-Z,;"(]{0,10}$/);
  fc.assert(
    fc.property(words, fc.ipV4(), fc.option(fc.integer({ min: 1, max: 65_535 })), (before, ip, port) => {
      const address = port === null ? ip : `${ip}:${port}`;
      expect(withoutAddresses(`${before} ${address} x`)).not.toContain(ip);
      expect(withoutAddresses(`${before} https://${address}/a?b=c`)).not.toContain(ip);
    }),
  );
});
