// What became of events and actions.

import test from 'node:test';
import assert from 'node:assert/strict';
import { outcomes, outcomesFrom, possible, secretOf, tone, word } from '../lib/outcomes.js';

test('what needs a person is named first', () => {
  assert.deepEqual(outcomes({ succeeded: 2, dead: 1, parked: 0 }), [{ state: 'dead', count: 1 }, { state: 'succeeded', count: 2 }]);
  assert.deepEqual(outcomes({ asleep: 1 }), [{ state: 'asleep', count: 1 }], 'a state that this page does not know');
  assert.deepEqual(outcomes(null), []);
  assert.deepEqual([tone('asleep'), word('asleep')], ['quiet', 'asleep']);
  assert.deepEqual(outcomes({ asleep: 0, dead: 0 }), []);
  const tones = { pending: 'quiet', running: 'quiet', succeeded: 'good', waiting: 'warn', unknown: 'warn', parked: 'warn', suppressed: 'quiet', cancelled: 'quiet', dead: 'bad' };
  for (const [state, expected] of Object.entries(tones)) assert.equal(tone(state), expected, state);
});

test('what a person may do is what the API says, else what the state allows', () => {
  assert.deepEqual(possible({ state: 'dead', can: [] }), []);
  assert.deepEqual(possible({ state: 'dead' }), ['retry']);
  assert.deepEqual(possible({ state: 'unknown' }), ['resolve']);
  assert.deepEqual(possible({ state: 'succeeded' }), []);
});

test('outcomes of events from the newest actions', () => {
  const at = (/** @type {number} */ seconds) => new Date(seconds * 1000).toISOString();
  const action = (/** @type {string} */ event_id, /** @type {string} */ state, /** @type {number} */ seconds) => ({ event_id, state, created_at: at(seconds) });
  const actions = [action('b', 'dead', 90), action('b', 'succeeded', 90), action('a', 'succeeded', 50)];
  const event = (/** @type {string} */ id, /** @type {number} */ seconds) => ({ id, received_at: at(seconds) });
  const some = outcomesFrom(actions, false);
  assert.deepEqual(some(event('b', 89), 200_000), { dead: 1, succeeded: 1 });
  assert.deepEqual(some(event('c', 80), 200_000), {}, 'no rule wanted it');
  assert.equal(some(event('d', 195), 200_000), undefined, 'may still be planned');
  assert.equal(some(event('a', 49), 200_000), undefined, 'the list does not reach so far');
  assert.deepEqual(outcomesFrom(actions, true)(event('a', 49), 200_000), { succeeded: 1 });
  assert.equal(outcomesFrom([], false)(event('a', 49), 200_000), undefined);
});

test('a secret is named by its owner', () => {
  const endpoints = [{ name: 'Front desk', secrets: [{ id: 'a', last_four: '1234' }] }, { name: 'of an earlier API' }];
  const integrations = [{ provider: 'twilio', signing_secrets: [{ id: 'b' }] }, { provider: 'vapi' }];
  assert.deepEqual(secretOf('a', endpoints, integrations), { owner: 'Front desk', isProvider: false, lastFour: '1234' });
  assert.deepEqual(secretOf('b', endpoints, integrations), { owner: 'twilio', isProvider: true, lastFour: null });
  assert.equal(secretOf('c', endpoints, integrations), null);
});
