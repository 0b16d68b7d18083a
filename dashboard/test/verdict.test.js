// The verdict of each rule on an event.

import test from 'node:test';
import assert from 'node:assert/strict';
import { byWeight, known, tried } from '../lib/verdict.js';

const event = { source: 'vapi', received_at: '2026-01-02T00:00:00Z' };
const rule = { id: 'r', name: 'a rule', enabled: true, source: 'vapi', updated_at: '2026-01-01T00:00:00Z' };
const none = new Set(/** @type {string[]} */ ([]));

test('what is known of a rule needs no question', () => {
  assert.deepEqual(known(rule, event, new Set(['r'])), { said: 'yes', why: 'acted', isChanged: false });
  assert.deepEqual(known({ ...rule, enabled: false }, event, new Set(['r']))?.said, 'yes', 'it was on then');
  assert.deepEqual(known({ ...rule, enabled: false }, event, none), { said: 'no', why: 'off', isChanged: false });
  assert.deepEqual(known({ ...rule, source: 'twilio' }, event, none), { said: 'no', why: 'not_matched', field: 'source', isChanged: false });
  assert.equal(known(rule, event, none), null);
  assert.equal(known({ ...rule, enabled: false, updated_at: '2026-01-03T00:00:00Z' }, event, none)?.isChanged, true);
});

test('a try says no, why it would fail, or that it would act now', () => {
  assert.deepEqual(tried(rule, event, { outcome: 'not_matched', field: 'when' }), { said: 'no', why: 'not_matched', field: 'when', isChanged: false });
  assert.equal(tried(rule, event, { outcome: 'planned' }).said, 'open');
  assert.deepEqual(tried(rule, event, { outcome: 'failed', cause: 'template_failed', detail: 'body: no' }), { said: 'broken', why: 'failed', cause: 'template_failed', detail: 'body: no', isChanged: false });
  assert.deepEqual(tried(rule, event, { outcome: 'other', detail: 'away' }), { said: 'open', why: 'not_tried', detail: 'away', isChanged: false });
  const said = (/** @type {any} */ one) => ({ verdict: { said: one, why: /** @type {any} */ ('off'), isChanged: false } });
  assert.deepEqual(byWeight(['no', 'open', 'yes', 'broken'].map(said)).map((row) => row.verdict.said), ['yes', 'broken', 'open', 'no']);
});

test('a rule that was changed after the event is said to be', () => {
  const at = (/** @type {string} */ updated_at) => ({ ...rule, updated_at });
  const [before, same, after] = ['2026-01-01T23:59:59Z', event.received_at, '2026-01-02T00:00:00.001Z'].map(at);
  const acted = new Set(['r']);
  for (const [one, isChanged] of /** @type {[typeof rule, boolean][]} */ ([[before, false], [same, false], [after, true]])) {
    assert.equal(known(one, event, acted)?.isChanged, isChanged);
    assert.equal(known({ ...one, source: 'twilio' }, event, none)?.isChanged, isChanged);
    for (const outcome of ['not_matched', 'planned', 'failed', 'other']) assert.equal(tried(one, event, { outcome }).isChanged, isChanged, outcome);
  }
});

test('sorting leaves the list as it was, and rows of one verdict in their order', () => {
  const rows = ['no', 'yes', 'no', 'yes'].map((said, id) => ({ id, verdict: { said: /** @type {any} */ (said), why: /** @type {any} */ ('off'), isChanged: false } }));
  assert.deepEqual(byWeight(rows).map(({ id }) => id), [1, 3, 0, 2]);
  assert.deepEqual(rows.map(({ id }) => id), [0, 1, 2, 3]);
});

test('what would act now is open, because nobody knows what it did then', () => {
  assert.deepEqual(tried(rule, event, { outcome: 'planned' }), { said: 'open', why: 'would_now', isChanged: false });
});
