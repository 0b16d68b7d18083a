// Addresses.

import test from 'node:test';
import assert from 'node:assert/strict';
import { href, isPage, placeOf } from '../lib/page.js';

test('an address is read as it was written', () => {
  /** @type {[string, string, string | null, Record<string, string>][]} */
  const table = [
    ['/dashboard', 'overview', null, {}],
    ['/dashboard/', 'overview', null, {}],
    ['/dashboard/events?source=vapi', 'events', null, { source: 'vapi' }],
    ['/dashboard/rules/new?ready=crm', 'rules', 'new', { ready: 'crm' }],
    ['/dashboard/events/a%20b', 'events', 'a b', {}],
    ['/dashboard/events/%E0%A4%A', 'events', '%E0%A4%A', {}],
  ];
  for (const [address, page, id, query] of table) {
    const place = placeOf(new URL(address, 'http://x'));
    assert.deepEqual([place.page, place.id, Object.fromEntries(place.query)], [page, id, query], address);
  }
  assert.equal(href('events', 'a b', { source: 'vapi', type: '' }), '/dashboard/events/a%20b?source=vapi');
  assert.equal(href('rules'), '/dashboard/rules');
});

test('an address that is no page names no file', () => {
  for (const page of ['overview', 'settings', 'caches']) assert.ok(isPage(page), page);
  for (const page of ['kept', 'hours', 'sign-in', '../app', 'constructor', '']) assert.ok(!isPage(page), page);
});
