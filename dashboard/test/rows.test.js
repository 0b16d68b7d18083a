// Lists that grow at their beginning.

import test from 'node:test';
import assert from 'node:assert/strict';
import { extended, merged } from '../lib/rows.js';

const rows = (/** @type {string} */ ids) => [...ids].map((id) => ({ id }));
const ids = (/** @type {{id: string}[]} */ list) => list.map((row) => row.id).join('');

test('the newest page and what is loaded', () => {
  /** @type {[string, string, string, string, boolean, boolean?][]} */
  const table = [
    ['nothing is new', 'cba', 'cba', 'cba', false],
    ['one is new', 'cba', 'dcb', 'dcba', false],
    ['the first rows', '', 'cba', 'cba', false],
    ['nothing at all', '', '', '', false],
    ['more are new than a page holds', 'cba', 'hgf', 'hgf', true],
    ['one has left the list', 'dcba', 'dba', 'dba', false],
    ['none is left of the newest page', 'cba', '', 'cba', false],
    ['the newest has left the list', 'dcba', 'cba', 'cba', false],
    ['two between have left the list', 'edcba', 'eb', 'eba', false],
    ['older pages stay', 'fedcba', 'gfe', 'gfedcba', false],
    ['the last one has left the list', 'a', '', '', false, true],
    ['all but one have left the list', 'dcba', 'c', 'c', false, true],
  ];
  for (const [what, loaded, newest, expected, gap, isWhole] of table) {
    const { rows: result, hasGap } = merged(rows(loaded), rows(newest), isWhole === true);
    assert.equal(ids(result), expected, what);
    assert.equal(hasGap, gap, what);
  }
});

test('a row is shown as it is now', () => {
  const result = merged([{ id: 'a', state: 'waiting' }], [{ id: 'a', state: 'succeeded' }], false);
  assert.deepEqual(result.rows, [{ id: 'a', state: 'succeeded' }]);
});

test('no row of an older page stands twice', () => {
  assert.equal(ids(extended(rows('dcb'), rows('ba'))), 'dcba');
});
