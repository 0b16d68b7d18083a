// Telephone numbers while they are typed: the country stays, and so does the caret.

import test from 'node:test';
import assert from 'node:assert/strict';
import { groupedNumber, plainNumber, typedNumber } from '../lib/phone.js';

test('numbers in groups', () => {
  for (const [text, grouped] of [
    ['+12025550123', '+1 202 555 0123'],
    ['+1202', '+1 202'],
    ['+12025', '+1 202 5'],
    ['+442079', '+44 2079'],
    ['+1', '+1'],
    ['+442079460958', '+44 207 946 0958'],
    ['+4930123456', '+49 301 234 56'],
    ['+35312345678', '+353 123 456 78'],
    ['+', '+'],
    ['', ''],
  ]) {
    assert.equal(groupedNumber(text), grouped);
    assert.equal(plainNumber(grouped), text, 'nothing is added and nothing lost');
  }
});

test('a number without a country gets none', () => {
  for (const text of ['2025550123', '(202) 555-0123', '020 7946 0958', '00442079460958', '7700 900123']) {
    assert.equal(groupedNumber(text), text);
    assert.ok(!plainNumber(text).includes('+'), text);
  }
});

test('a text that is no number stays as it is', () => {
  assert.equal(groupedNumber('hello'), 'hello');
  assert.equal(plainNumber(' +1 call '), '+1 call');
});

test('typing a number digit by digit keeps the caret at the end', () => {
  let shown = { text: '', caret: 0 };
  for (const key of '+442079460958') {
    const text = shown.text.slice(0, shown.caret) + key + shown.text.slice(shown.caret);
    shown = typedNumber(text, shown.caret + 1);
    assert.equal(shown.caret, shown.text.length);
  }
  assert.equal(shown.text, '+44 207 946 0958');
});

test('a digit put into the middle leaves the caret behind it', () => {
  // +1 202 |55 0123, then 5
  const shown = typedNumber('+1 202 555 0123', 8);
  assert.deepEqual(shown, { text: '+1 202 555 0123', caret: 8 });
  const later = typedNumber('+1 2029 55 0123', 7);
  assert.equal(later.text, '+1 202 955 0123');
  assert.equal(later.text.slice(0, later.caret).replace(/\D/g, ''), '12029');
});

test('a digit taken from the middle leaves the caret where it was', () => {
  const shown = typedNumber('+1 20 555 0123', 5);
  assert.equal(shown.text, '+1 205 550 123');
  assert.equal(shown.text.slice(0, shown.caret).replace(/\D/g, ''), '120');
});
