// The operators' own: pauses, keys, and their pages.

import test from 'node:test';
import assert from 'node:assert/strict';
import { roleOf, rotation } from '../lib/keys.js';
import { isPageOf, pagesOf } from '../lib/page.js';
import { keyOf, SCOPES, targetOf } from '../lib/pauses.js';

test('an operator and a person of an organisation see the pages of their own', () => {
  const [operator, owner] = [['operate'], ['read', 'retry', 'manage']];
  assert.deepEqual(pagesOf(operator), ['dead-events', 'quarantine', 'pauses', 'jobs', 'keys', 'caches', 'settings']);
  assert.deepEqual(pagesOf(owner).filter((page) => pagesOf(operator).includes(page)), ['settings']);
  assert.deepEqual(pagesOf([]), pagesOf(owner));
  /** @type {[string, string | null, boolean, boolean][]} */
  const table = [['keys', null, true, false], ['jobs', null, true, false], ['jobs', 'x', true, true], ['rules', null, false, true], ['nowhere', null, false, false]];
  for (const [page, id, forOperator, forOwner] of table) {
    assert.deepEqual([isPageOf({ page, id }, operator), isPageOf({ page, id }, owner)], [forOperator, forOwner], `${page} ${id}`);
  }
});

test('a pause names exactly what it holds, whatever else stood in the form', () => {
  const form = { org_id: 'o', provider: 'twilio', rule_id: 'r' };
  const targets = SCOPES.map((scope) => targetOf({ scope, ...form }));
  assert.deepEqual(targets, [{ all: true }, { org_id: 'o' }, { provider: 'twilio' }, { rule_id: 'r' }]);
  assert.deepEqual(targetOf({ scope: 'rule', org_id: 'o', provider: null, rule_id: 'r' }), { rule_id: 'r' }, 'a row of a rule names its organisation too');
  assert.equal(new Set(SCOPES.map((scope) => keyOf({ scope, ...form }))).size, 4);
});

test('a rotation is whole when nothing is sealed under another key', () => {
  const key = (/** @type {boolean} */ is_primary, /** @type {number} */ data_keys, events = 0) => ({ key: `k${data_keys}`, is_primary, instances: 2, data_keys, events, may_leave: false });
  assert.deepEqual(rotation({ primary: 'k3', keys: [key(true, 3), key(false, 0)], instances: [] }), { state: 'whole', total: 3, done: 3, left: 0, events: 0 });
  assert.deepEqual(rotation({ primary: 'k3', keys: [key(true, 3), key(false, 5, 2)], instances: [] }), { state: 'moving', total: 8, done: 3, left: 5, events: 2 });
  assert.equal(rotation({ primary: 'k3', keys: [key(true, 3), key(false, 0, 1)], instances: [] }).state, 'moving', 'an event still needs it');
  assert.deepEqual(rotation({ primary: null, keys: [], instances: [] }), { state: 'none', total: 0, done: 0, left: 0, events: 0 });
});

test('what is to be said of a key', () => {
  const key = { key: 'k', is_primary: false, instances: 2, data_keys: 1, events: 0, may_leave: false };
  assert.equal(roleOf({ ...key, is_primary: true }, 2), 'primary');
  assert.equal(roleOf({ ...key, is_primary: true, instances: 1 }, 2), 'missing');
  assert.equal(roleOf(key, 2), 'needed');
  assert.equal(roleOf({ ...key, instances: 0 }, 2), 'missing');
  assert.equal(roleOf({ ...key, may_leave: true, instances: 0 }, 2), 'leave');
});
