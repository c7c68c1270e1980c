import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import {
  decideRetention,
  missingGood,
  type RetentionCandidate,
  type RetentionPolicy,
} from '../../src/domain/retention.ts';

const NOW = Date.UTC(2026, 10, 21);
const HOUR = 3_600_000;

/** Small numbers and zeros on purpose: that is where retention rules break. */
const backups = fc
  .uniqueArray(fc.integer({ min: -3, max: 24 * 40 }), { maxLength: 30 })
  .chain((ages) =>
    fc.tuple(
      ...ages.map((age, index) =>
        fc.record({
          id: fc.constant(`b${String(index).padStart(3, '0')}`),
          time: fc.constant(NOW - age * HOUR),
          leased: fc.boolean(),
          damaged: fc.oneof(fc.constant(false), fc.boolean()),
        }),
      ),
    ),
  )
  .map((list): RetentionCandidate[] =>
    list.map(({ damaged, ...backup }) => (damaged ? { ...backup, damage: 'it is damaged' } : backup)),
  );
const isGood = ({ damage, time }: RetentionCandidate) => damage === undefined && time <= NOW + 5 * 60_000;
const UNCAPPED = { maxRemovals: 1000 };
const policy: fc.Arbitrary<RetentionPolicy> = fc.record(
  {
    keepLast: fc.oneof(fc.constant(1), fc.integer({ min: 1, max: 10 })),
    keepWithinDays: fc.oneof(fc.constant(0), fc.integer({ min: 0, max: 30 })),
    minGood: fc.integer({ min: 1, max: 4 }),
    maxRemovals: fc.oneof(fc.constant(1000), fc.integer({ min: 1, max: 5 })),
  },
  { requiredKeys: [] },
);

function removed(list: readonly RetentionCandidate[], rule: RetentionPolicy, now = NOW): string[] {
  return decideRetention(list, rule, now)
    .filter(({ keep }) => !keep)
    .map(({ id }) => id);
}

function holds(property: (list: RetentionCandidate[], rule: RetentionPolicy) => void): void {
  fc.assert(fc.property(backups, policy, property), { numRuns: 2000 });
}

describe('retention', () => {
  test('the newest good backup always survives', () => {
    holds((list, rule) => {
      const good = list.filter(isGood).toSorted((a, b) => b.time - a.time);
      const [newest] = good;
      if (newest !== undefined) expect(removed(list, rule)).not.toContain(newest.id);
    });
  });

  test('never fewer than minGood remain', () => {
    holds((list, rule) => {
      const good = list.filter(isGood);
      const gone = new Set(removed(list, rule));
      const left = good.filter(({ id }) => !gone.has(id)).length;
      expect(left).toBeGreaterThanOrEqual(Math.min(good.length, rule.minGood ?? 1));
    });
  });

  test('what a restore reads and what lies in the future survives', () => {
    holds((list, rule) => {
      const gone = removed(list, rule);
      for (const { id, time, leased } of list) {
        if (leased || time > NOW + 5 * 60_000) expect(gone).not.toContain(id);
      }
    });
  });

  test('a second sweep right after an uncapped one removes nothing', () => {
    holds((list, rule) => {
      const uncapped = { ...rule, maxRemovals: 1000 };
      const gone = new Set(removed(list, uncapped));
      expect(
        removed(
          list.filter(({ id }) => !gone.has(id)),
          uncapped,
        ),
      ).toEqual([]);
    });
  });

  test('the order of the listing decides nothing', () => {
    holds((list, rule) => {
      expect(removed(list.toReversed(), rule)).toEqual(removed(list, rule));
    });
  });

  test('ten years without a new backup remove nothing more', () => {
    holds((list, rule) => {
      const past = list.filter(({ time }) => time <= NOW);
      expect(removed(past, rule, NOW + 10 * 365 * 24 * HOUR)).toEqual(removed(past, rule));
    });
  });

  test('raising a number never removes more', () => {
    holds((list, rule) => {
      const gone = new Set(removed(list, { ...rule, maxRemovals: 1000 }));
      for (const raised of [
        { ...rule, keepLast: (rule.keepLast ?? 0) + 1 },
        { ...rule, keepWithinDays: (rule.keepWithinDays ?? 0) + 1 },
        { ...rule, minGood: (rule.minGood ?? 1) + 1 },
      ]) {
        if (rule.keepLast === undefined && rule.keepWithinDays === undefined) continue;
        for (const id of removed(list, { ...raised, maxRemovals: 1000 })) expect(gone).toContain(id);
      }
    });
  });

  test('at most maxRemovals go, the oldest of those that may', () => {
    holds((list, rule) => {
      const all = removed(list, { ...rule, maxRemovals: 1000 });
      const capped = removed(list, rule);
      expect(capped).toEqual(all.slice(Math.max(0, all.length - (rule.maxRemovals ?? 20))));
    });
  });

  test('everything goes that no rule keeps', () => {
    const list = Array.from({ length: 6 }, (_, index) => ({
      id: `b${index}`,
      time: NOW - index * HOUR,
      leased: false,
    }));
    expect(removed(list, { keepLast: 2 })).toEqual(['b2', 'b3', 'b4', 'b5']);
    expect(removed(list, { keepWithinDays: 3 / 24 })).toEqual(['b4', 'b5']);
    expect(removed(list, { keepLast: 1, keepWithinDays: 0 })).toEqual(['b1', 'b2', 'b3', 'b4', 'b5']);
  });

  test('damaged backups decide nothing about good ones', () => {
    holds((list, rule) => {
      const uncapped = { ...rule, ...UNCAPPED };
      const sound = list.filter(({ damage }) => damage === undefined);
      const ids = new Set(sound.map(({ id }) => id));
      expect(removed(list, uncapped).filter((id) => ids.has(id))).toEqual(removed(sound, uncapped));
    });
  });

  test('that one more is found damaged never removes a good one', () => {
    holds((list, rule) => {
      const uncapped = { ...rule, ...UNCAPPED };
      const before = removed(list, uncapped);
      for (const { id: hit } of list.slice(0, 3)) {
        const after = list.map((backup) => (backup.id === hit ? { ...backup, damage: 'it is damaged' } : backup));
        for (const id of removed(after, uncapped)) if (id !== hit) expect(before).toContain(id);
      }
    });
  });

  test('a damaged one stays while fewer than minGood good ones exist, and as long as a good one in its place', () => {
    holds((list, rule) => {
      const gone = new Set(removed(list, { ...rule, ...UNCAPPED }));
      const good = list.filter(isGood).length;
      for (const backup of list.filter(({ damage }) => damage !== undefined)) {
        if (good < (rule.minGood ?? 1)) expect(gone).not.toContain(backup.id);
        const { damage: _, ...mended } = backup;
        const whole = list.map((other) => (other.id === backup.id ? mended : other));
        const kept = !removed(whole, { ...rule, ...UNCAPPED, minGood: 1 }).includes(backup.id);
        // Mended it may be the newest good one, and then ages count from it.
        const isNewest = list.every((other) => !isGood(other) || other.time <= backup.time);
        if (kept && !isNewest) expect(gone).not.toContain(backup.id);
      }
    });
  });

  test('data goes only while enough good ones exist', () => {
    holds((list, rule) => {
      const missing = missingGood(list, rule, NOW);
      expect(missing).toBe(Math.max(0, (rule.minGood ?? 1) - list.filter(isGood).length));
      // What a sweep marks is never missed afterwards.
      const gone = new Set(removed(list, rule));
      const left = list.filter(({ id }) => !gone.has(id));
      expect(missingGood(left, rule, NOW)).toBe(missing);
    });
  });

  test('a policy that names nothing removes nothing', () => {
    holds((list) => {
      expect(removed(list, {})).toEqual([]);
    });
  });
});
