// The depth of the queue and the use of caches over a time.

import test from 'node:test';
import assert from 'node:assert/strict';
import { samplesOf } from '../lib/samples.js';

const cache = (/** @type {string} */ name, /** @type {number} */ hits, /** @type {number} */ misses) => ({ name, hits, misses, hit_rate: null });
const FROM = Date.UTC(2026, 10, 28, 6, 5);
const BUCKETS = [
  { from: '2026-11-28T06:05:00.000000Z', queue_events: null, caches: [] },
  { from: '2026-11-28T06:06:00.000000Z', queue_events: 9, caches: [cache('data_keys', 3, 1), cache('credentials', 0, 0)] },
  { from: '2026-11-28T06:07:00.000000Z', queue_events: 0, caches: [cache('credentials', 0, 2), cache('data_keys', 12, 0)] },
];

test('a minute without a sample is none, and an empty queue is one', () => {
  const { depth, deepest, newest } = samplesOf(BUCKETS);
  assert.deepEqual(depth.map(({ counts, total }) => [counts.all, total]), [[null, 0], [9, 9], [0, 0]]);
  assert.deepEqual(depth.map(({ from }) => from), [FROM, FROM + 60_000, FROM + 120_000]);
  assert.deepEqual([deepest, newest], [9, 0]);
  const none = samplesOf([BUCKETS[0]]);
  assert.deepEqual([none.deepest, none.newest, none.caches], [null, null, []]);
});

test('the rate of a time is of its looks, not the middle of its parts', () => {
  const [keys, credentials] = samplesOf(BUCKETS).caches;
  assert.deepEqual([keys.name, keys.rate], ['data_keys', 15 / 16]);
  assert.deepEqual(keys.bars.map(({ counts }) => counts), [{ rate: null, hits: 0, misses: 0 }, { rate: 0.75, hits: 3, misses: 1 }, { rate: 1, hits: 12, misses: 0 }]);
  assert.deepEqual(keys.bars.map(({ total }) => total), [0, 0.75, 1]);
  assert.deepEqual([credentials.rate, credentials.bars[1].counts.rate, credentials.bars[2].counts.rate], [0, null, 0]);
});
