// The settings of an organisation as data.

import test from 'node:test';
import assert from 'node:assert/strict';
import { WEEKDAYS, changesOf, draftOf, pairsOf, placed, textOf } from '../lib/hours.js';

/** @type {any} */
const NOTHING = { time_zone: null, opening_hours: null, quiet_hours: null, retention_days: null, retention_days_max: 90, damaged: [], version: 0, updated_at: null, etag: '"0"' };
const CLOSED = Object.fromEntries(WEEKDAYS.map((day) => [day, []]));

test('times are read as people write them', () => {
  for (const [text, pairs] of /** @type {[string, [string, string][]][]} */ ([
    ['', []],
    [' , ', []],
    ['09:00–17:00', [['09:00', '17:00']]],
    ['9-17', [['09:00', '17:00']]],
    ['9.30 - 12, 13:00 to 18:15; 20 until 24', [['09:30', '12:00'], ['13:00', '18:15'], ['20:00', '24:00']]],
    ['soon', [['soon', '']]],
    ['9', [['09:00', '']]],
    ['8-12-14', [['08:00', '12–14']]],
  ])) {
    assert.deepEqual(pairsOf(text).map(({ from, until }) => [from, until]), pairs, text);
  }
});

test('settings that are shown and sent back are the same', () => {
  const hours = { ...CLOSED, monday: [{ from: '09:00', until: '12:30' }, { from: '13:30', until: '18:00' }], saturday: [{ from: '22:00', until: '24:00' }] };
  for (const settings of [
    { time_zone: null, opening_hours: null, quiet_hours: null, retention_days: null },
    { time_zone: 'Europe/Berlin', opening_hours: hours, quiet_hours: { from: '21:00', until: '08:00' }, retention_days: 30 },
    { time_zone: 'UTC', opening_hours: CLOSED, quiet_hours: null, retention_days: 1 },
  ]) {
    assert.deepEqual(changesOf(draftOf({ ...NOTHING, ...settings })), settings);
  }
  assert.equal(textOf(hours.monday), '09:00–12:30, 13:30–18:00');
});

test('a first choice of opening hours begins with the usual ones', () => {
  const sent = changesOf({ ...draftOf(NOTHING), hasHours: true }).opening_hours;
  assert.deepEqual(sent?.friday, [{ from: '09:00', until: '17:00' }]);
  assert.deepEqual(sent?.sunday, []);
});

test('what is half filled in or no number is sent, so that the API says what is wrong', () => {
  const draft = { ...draftOf(NOTHING), quietFrom: '21:00', days_kept: 'a month' };
  assert.deepEqual(changesOf(draft).quiet_hours, { from: '21:00', until: '' });
  assert.equal(changesOf(draft).retention_days, 'a month');
});

test('an error stands at its field, and one of no field keeps its name', () => {
  const problem = 'is wrong';
  assert.deepEqual(
    placed([
      { field: 'opening_hours.monday[0].from', problem },
      { field: 'opening_hours.monday[1].until', problem },
      { field: 'opening_hours.tuesday', problem: 'is too long' },
      { field: 'quiet_hours', problem },
      { field: 'quiet_hours.until', problem },
      { field: 'retention_days', problem },
      { field: 'opening_hours', problem },
    ]),
    {
      'opening_hours.monday': problem,
      'opening_hours.tuesday': 'is too long',
      'quiet_hours.from': problem,
      'quiet_hours.until': problem,
      retention_days: problem,
      '': `opening_hours: ${problem}`,
    },
  );
});
