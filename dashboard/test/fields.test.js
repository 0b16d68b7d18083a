// What a form checks and sends.

import test from 'node:test';
import assert from 'node:assert/strict';
import { bodyOf, initialValues, initialWay, problems, sentence, shownFields } from '../lib/fields.js';
import { twilio } from './samples.js';

const SID = 'AC' + '0'.repeat(32);
const stored = { settings: { account_sid: SID, phone_number: '+15552010100' }, secrets_set: ['auth_token'] };

test('the fields of the other way are not shown', () => {
  const names = (/** @type {number} */ way) => shownFields(twilio, way).map((field) => field.name);
  assert.deepEqual(names(0), ['account_sid', 'auth_token', 'auth_token_secondary', 'phone_number']);
  assert.deepEqual(names(1), ['account_sid', 'auth_token_secondary', 'api_key_sid', 'api_key_secret', 'phone_number']);
});

test('an opened form stands on the way that is stored', () => {
  assert.equal(initialWay(twilio, null), 0);
  assert.equal(initialWay(twilio, stored), 0);
  assert.equal(initialWay(twilio, { settings: { api_key_sid: 'SK' }, secrets_set: ['api_key_secret'] }), 1);
});

test('a stored secret may stay empty, but not for another account', () => {
  const values = { account_sid: SID, auth_token: '', phone_number: '' };
  assert.deepEqual(problems(twilio, 0, values, stored), {});
  assert.deepEqual(Object.keys(problems(twilio, 0, { ...values, account_sid: 'AC' + '1'.repeat(32) }, stored)), ['auth_token']);
  assert.deepEqual(Object.keys(problems(twilio, 0, values, null)), ['auth_token']);
});

test('all wrong fields are named at once', () => {
  const found = problems(twilio, 0, { account_sid: 'AC1', auth_token: 'has blank', phone_number: '020 7946 0958' }, null);
  assert.deepEqual(Object.keys(found), ['account_sid', 'auth_token', 'phone_number']);
  assert.match(found.phone_number, /country/);
});

test('what is sent', () => {
  /** @type {[string, any, any, any][]} */
  const table = [
    ['blanks are cut off, groups are closed', { account_sid: ` ${SID} `, auth_token: 't', phone_number: '+44 20 7946 0958' }, null, { account_sid: SID, auth_token: 't', phone_number: '+442079460958' }],
    ['an empty secret is kept', { account_sid: SID, auth_token: '', phone_number: '+15552010100' }, stored, { account_sid: SID, phone_number: '+15552010100' }],
    ['an emptied setting is removed', { account_sid: SID, auth_token: '', phone_number: '' }, stored, { account_sid: SID, phone_number: null }],
    ['an empty setting that never was is left out', { account_sid: SID, auth_token: 't', phone_number: '' }, null, { account_sid: SID, auth_token: 't' }],
  ];
  for (const [what, values, before, body] of table) assert.deepEqual(bodyOf(twilio, 0, values, before), body, what);
});

test('a form begins with what is stored and no secret', () => {
  assert.deepEqual(initialValues(twilio, null), Object.fromEntries(twilio.fields.map(({ name }) => [name, ''])));
  const stored = /** @type {any} */ ({ settings: { phone_number: '+15552010100', auth_token: 'never' }, secrets_set: ['auth_token'] });
  const values = initialValues(twilio, stored);
  assert.deepEqual([values.phone_number, values.auth_token, values.account_sid], ['+15552010100', '', '']);
});

test('a way is in use when all of its fields are set', () => {
  const way = (/** @type {string[]} */ ...set) => initialWay(twilio, /** @type {any} */ ({ secrets_set: set, settings: {} }));
  assert.deepEqual([way('auth_token'), way('api_key_sid', 'api_key_secret'), way('api_key_secret'), way()], [0, 1, 0, 0]);
});

test('a problem reads as a sentence', () => {
  assert.deepEqual([sentence('expected it'), sentence('Is wrong.'), sentence('x')], ['Expected it.', 'Is wrong.', 'X.']);
});
