// Figures of the overview.

import test from 'node:test';
import assert from 'node:assert/strict';
import { attention, bars, duration, figures, quantile, SPANS } from '../lib/overview.js';

const NOW = Date.UTC(2026, 10, 28, 7, 3);
const ago = (/** @type {number} */ minutes) => new Date(NOW - minutes * 60_000).toISOString();

test('rows are counted in bars that stand on round times', () => {
  const rows = [{ at: ago(0) }, { at: ago(2) }, { at: ago(4) }, { at: ago(56) }, { at: ago(70) }];
  const result = bars(rows, (row) => row.at, NOW, SPANS.hour);
  assert.equal(result.length, 12);
  assert.equal(new Date(result[0].from).toISOString(), '2026-11-28T06:05:00.000Z');
  assert.deepEqual(result.map((bar) => bar.total), [1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 2]);
});

test('figures of actions', () => {
  const action = (/** @type {string} */ state, /** @type {number} */ ms, attempts = 1, minutes = 1) => ({
    state,
    attempts,
    created_at: ago(minutes),
    updated_at: new Date(new Date(ago(minutes)).getTime() + ms).toISOString(),
  });
  const found = figures([action('succeeded', 100), action('succeeded', 300, 2), action('dead', 9), action('parked', 9), action('dead', 9, 1, 90)], NOW, SPANS.hour);
  assert.deepEqual(found, { planned: 4, succeeded: 2, success: 2 / 3, retried: 1, half: 100, most: 300 });
  assert.deepEqual(figures([], NOW, SPANS.hour), { planned: 0, succeeded: 0, success: null, retried: 0, half: null, most: null });
  assert.equal(quantile([1, 2, 3, 4], 0.5), 2);
});

test('what needs attention comes in the order of its weight', () => {
  const found = attention(
    [{ provider: 'vapi', state: 'limited' }, { provider: 'twilio', state: 'needs_reconnecting' }, { provider: 'resend', state: 'connected' }],
    { dead: { count: 2, hasMore: false }, unknown: { count: 1, hasMore: false }, parked: { count: 0, hasMore: false } },
    3,
  );
  assert.deepEqual(found.map(({ kind, state }) => state ?? kind), ['needs_reconnecting', 'unknown', 'dead', 'limited', 'refused']);
  assert.deepEqual(attention([{ provider: 'vapi', state: 'not_connected' }], {}, 0), []);
});

test('times that passed', () => {
  assert.deepEqual([null, 12.4, 1500, 90_000, 7_200_000].map(duration), ['–', '12 ms', '1.5 s', '2 min', '2 h']);
});

test('a pause of an operator comes first: nothing goes out until it is lifted', () => {
  const pauses = [{ scope: 'provider', provider: /** @type {const} */ ('resend'), reason: 'It is being moved' }];
  const found = attention([{ provider: 'twilio', state: 'failing' }], {}, 1, pauses);
  assert.deepEqual(found.map(({ kind }) => kind), ['paused', 'integration', 'refused']);
  assert.deepEqual(found[0], { kind: 'paused', scope: 'provider', provider: 'resend', reason: 'It is being moved' });
});
