// Figures of the overview.

import test from 'node:test';
import assert from 'node:assert/strict';
import { attention, barsOf, countSince, duration, success } from '../lib/overview.js';

const bucket = (/** @type {string} */ from, /** @type {any} */ more) => ({ from, events: 0, actions: 0, succeeded: 0, dead: 0, retries: 0, latency_ms: null, backlog: 0, ...more });

test('bars have what the buckets of the API have', () => {
  const [first, second] = ['2026-11-28T06:05:00.000000Z', '2026-11-28T06:06:00.000000Z'];
  const bars = barsOf([bucket(first, { events: 7, actions: 6, succeeded: 3, dead: 1, retries: 2, latency_ms: { p50: 40, p95: 100 }, backlog: 5 }), bucket(second, {})]);
  const from = Date.UTC(2026, 10, 28, 6, 5);
  assert.deepEqual(bars.events[0], { from, counts: { all: 7 }, total: 7 });
  assert.deepEqual(bars.actions[0], { from, counts: { good: 3, other: 2, bad: 1 }, total: 6 });
  assert.deepEqual(bars.retries[0], { from, counts: { all: 2 }, total: 2 });
  assert.deepEqual(bars.times[0], { from, counts: { half: 40, rest: 60 }, total: 100 });
  assert.deepEqual(bars.backlog[0], { from, counts: { all: 5 }, total: 5 });
  assert.deepEqual(barsOf([bucket(first, { backlog: null })]).backlog[0], { from, counts: { all: null }, total: 0 }, 'not counted is not none');
  for (const each of [bars.events, bars.actions, bars.retries, bars.times, bars.backlog]) {
    assert.deepEqual([each[1].from, each[1].total], [from + 60_000, 0]);
  }
});

test('success is a part of what ended', () => {
  assert.equal(success(bucket('', { actions: 9, succeeded: 3, dead: 1 })), 0.75);
  assert.equal(success(bucket('', { actions: 9 })), null);
  assert.equal(success(bucket('', { succeeded: 2, dead: 2 })), 0.5);
});

test('what needs attention comes in the order of its weight', () => {
  const found = attention(
    [{ provider: 'vapi', state: 'limited' }, { provider: 'twilio', state: 'needs_reconnecting' }, { provider: 'resend', state: 'connected', rotation_due: true }],
    { dead: { count: 2, hasMore: false }, unknown: { count: 1, hasMore: false }, parked: { count: 0, hasMore: false } },
    3,
  );
  assert.deepEqual(found.map(({ kind, state }) => state ?? kind), ['needs_reconnecting', 'unknown', 'dead', 'limited', 'due', 'refused']);
  assert.equal(found[4].provider, 'resend');
  assert.deepEqual(attention([{ provider: 'vapi', state: 'not_connected' }], {}, 0), []);
  assert.deepEqual(attention([], { dead: { count: 200, hasMore: true } }, 0), [{ kind: 'actions', state: 'dead', count: 200, hasMore: true }]);
});

test('times that passed', () => {
  assert.deepEqual([null, 12.4, 1500, 90_000, 7_200_000].map(duration), ['–', '12 ms', '1.5 s', '2 min', '2 h']);
  assert.deepEqual([-1, 0, 999, 1_000, 59_999, 60_000, 3_599_999, 3_600_000].map(duration), ['0 ms', '0 ms', '999 ms', '1.0 s', '60.0 s', '1 min', '60 min', '1 h'], 'at the edges');
});

test('a pause of an operator comes first: nothing goes out until it is lifted', () => {
  const pauses = [{ scope: 'provider', provider: /** @type {const} */ ('resend'), reason: 'It is being moved' }];
  const found = attention([{ provider: 'twilio', state: 'failing' }], {}, 1, pauses);
  assert.deepEqual(found.map(({ kind }) => kind), ['paused', 'integration', 'refused']);
  assert.deepEqual(found[0], { kind: 'paused', scope: 'provider', provider: 'resend', reason: 'It is being moved' });
});

test('refused requests count from the begin of the span', () => {
  const rows = ['2026-11-28T06:05:01.000000Z', '2026-11-28T06:05:00.000000Z', '2026-11-28T06:04:59.999999Z'].map((at) => ({ at }));
  assert.equal(countSince(rows, '2026-11-28T06:05:00Z'), 2);
  assert.equal(countSince([], '2026-11-28T06:05:00Z'), 0);
});
