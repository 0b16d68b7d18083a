// Work on many actions at once.

import test from 'node:test';
import assert from 'node:assert/strict';
import { addressOf, jobsOf, linesOf, progressOf, requestOf } from '../lib/bulk.js';

test('a job is offered for exactly the rows that the filters name', () => {
  /** @type {['retry' | 'cancel', string, Record<string, string> | null][]} */
  const table = [
    ['retry', 'state=dead', { state: 'dead' }],
    ['retry', 'state=dead&provider=twilio&cause=expired&since=2026-01-01T00:00:00Z&until=', { state: 'dead', provider: 'twilio', cause: 'expired', since: '2026-01-01T00:00:00Z' }],
    ['retry', 'state=parked&rule_id=r', { state: 'parked', rule_id: 'r' }],
    ['retry', '', null],
    ['retry', 'provider=twilio', null],
    ['retry', 'state=succeeded', null],
    ['retry', 'state=dead,parked', null],
    ['retry', 'state=dead&event_id=e', null],
    ['cancel', 'state=dead', null],
    ['cancel', 'state=waiting', { state: 'waiting' }],
  ];
  for (const [verb, query, request] of table) assert.deepEqual(requestOf(verb, new URLSearchParams(query)), request, `${verb} ${query}`);
});

test('a plan names organisations only where there are several', () => {
  const line = (/** @type {string} */ org_id, /** @type {number} */ count) => ({ org_id, state: 'dead', provider: 'twilio', count });
  assert.deepEqual(linesOf([line('a', 1), line('a', 7), line('a', 0)]).map((one) => [one.org_id, one.count]), [[null, 7], [null, 1]]);
  assert.deepEqual(linesOf([line('a', 1), line('b', 7)]).map((one) => one.org_id), ['b', 'a']);
});

test('how far a job is', () => {
  const job = (/** @type {string} */ state, /** @type {number} */ planned, /** @type {number} */ done, /** @type {number} */ skipped) => progressOf({ state, planned, done, skipped });
  assert.deepEqual(job('running', 10, 3, 1), { max: 10, at: 4, left: 6, hasEnded: false });
  assert.deepEqual(job('stopped', 10, 3, 1), { max: 10, at: 4, left: 6, hasEnded: true });
  assert.deepEqual(job('done', 10, 8, 1), { max: 10, at: 10, left: 1, hasEnded: true }, 'the rest had moved on before it began');
  assert.deepEqual(job('running', 2, 5, 0), { max: 5, at: 5, left: 0, hasEnded: false }, 'more came meanwhile');
  assert.deepEqual(job('done', 0, 0, 0), { max: 1, at: 1, left: 0, hasEnded: true });
});

test('an address carries the jobs that were begun', () => {
  const jobs = [{ org_id: 'a', id: '1' }, { org_id: 'b', id: '2' }];
  assert.deepEqual(jobsOf(addressOf(jobs)), jobs);
  assert.deepEqual(jobsOf('a:1,b,:,c:2:3,d:'), [{ org_id: 'a', id: '1' }]);
  assert.deepEqual(jobsOf(null), []);
  const many = Array.from({ length: 100 }, (_, at) => ({ org_id: 'a', id: String(at) }));
  assert.equal(jobsOf(addressOf(many)).length, 40);
});
