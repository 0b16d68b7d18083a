// Moments in fields and in addresses.

import test from 'node:test';
import assert from 'node:assert/strict';
import { fieldOf, momentOf } from '../lib/moment.js';

test('a moment goes into a field and comes out the same', () => {
  for (const moment of ['2026-01-02T03:04:00Z', '2026-07-31T23:59:00Z']) assert.equal(momentOf(fieldOf(moment)), moment);
  assert.match(fieldOf('2026-01-02T03:04:05Z'), /^2026-01-0\dT\d\d:04$/);
});

test('what is no moment is none', () => {
  for (const text of ['', 'yesterday', null, undefined]) assert.equal(fieldOf(text), '');
  for (const text of ['', '  ', 'yesterday']) assert.equal(momentOf(text), '');
});
