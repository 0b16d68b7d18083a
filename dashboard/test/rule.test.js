// The editor of a rule as data.

import test from 'node:test';
import assert from 'node:assert/strict';
import { draftOf, emptyDraft, failures, fieldsOf, pathsOf, placed, specOf, withField } from '../lib/rule.js';
import { READY } from '../lib/ready.js';

/** @type {any[]} */
const parameters = [
  { name: 'to', type: 'text or list of texts' },
  { name: 'subject', type: 'text' },
  { name: 'body', type: 'object, list or text' },
];

test('a rule that is shown and sent back is the same', () => {
  for (const spec of [
    { name: 'a', source: 'vapi', event_type: 'x', when: 'message.a', action: 'resend.send_email', parameters: { to: ['a@b.c', 'd@e.f'], subject: 's' }, enabled: true, expires_after_seconds: 5400 },
    { name: 'a', source: 'vapi', event_type: 'x', action: 'twilio.send_sms', parameters: { to: '+1', body: 'b' }, enabled: true, ignores_quiet_hours: true },
    { name: 'a', source: 'vapi', event_type: '*', action: 'http.post', parameters: { to: 'a@b.c', body: { call: '{{ message.call.id }}', list: [1] } }, enabled: false },
    { name: 'a', source: 'vapi', event_type: '*', action: 'http.post', parameters: { body: '{{ message | tojson }}' }, enabled: true },
  ]) {
    assert.deepEqual(specOf(draftOf({ id: 'I', version: 3, ...spec }), parameters), spec);
  }
});

test('a rule of another kind says nothing about quiet hours', () => {
  const draft = { ...emptyDraft(), quiet: 'send' };
  assert.equal(specOf(draft, parameters).ignores_quiet_hours, true);
  assert.equal('ignores_quiet_hours' in specOf({ ...draft, action: 'http.post' }, parameters), false);
  assert.equal('ignores_quiet_hours' in specOf({ ...draft, quiet: 'wait' }, parameters), false);
});

test('parameters of another action, and empty ones, are not sent', () => {
  const draft = { ...emptyDraft(), parameters: { to: ' ', subject: 's', elsewhere: 'x' } };
  assert.deepEqual(specOf(draft, parameters).parameters, { subject: 's' });
});

test('the fields of an event by their paths', () => {
  const paths = pathsOf({ a: 1, b: { 'c-d': null, e: [{ f: 'x' }, { f: 'y' }] }, g: [] }, 'message').map(({ path, example }) => `${path}=${example}`);
  assert.deepEqual(paths, ['message.a=1', 'message.b["c-d"]=null', 'message.b.e[0].f=x']);
  assert.equal(fieldsOf('vapi', { message: { a: 1 } })[0].path, 'message.a');
  assert.equal(fieldsOf('twilio', 'From=%2B1&Body=hi')[0].path, 'params.From');
  assert.equal(fieldsOf('standard', { type: 'x' })[0].path, 'body.type');
  assert.equal(pathsOf(Object.fromEntries(Array.from({ length: 900 }, (_, n) => [`k${n}`, n])), 'body').length, 400);
});

test('a field is put where the caret stands, with braces only where they are missing', () => {
  assert.deepEqual(withField({ text: 'Hi !', start: 3, end: 3 }, 'message.a', true), { text: 'Hi {{ message.a }}!', caret: 18 });
  assert.equal(withField({ text: 'Hi {{  }}', start: 6, end: 6 }, 'message.a', true).text, 'Hi {{ message.a }}');
  assert.equal(withField({ text: '', start: 0, end: 0 }, 'message.a', false).text, 'message.a');
  assert.equal(withField({ text: 'Hi you', start: 3, end: 6 }, 'message.a', true).text, 'Hi {{ message.a }}');
});

test('each problem stands at its field', () => {
  assert.deepEqual(
    placed([
      { field: 'when', problem: 'a' },
      { field: 'parameters.body.call', problem: 'b' },
      { field: 'parameters.to', problem: 'c' },
      { field: 'parameters.to', problem: 'd' },
      { field: 'spec.name', problem: 'e' },
      { field: 'elsewhere', problem: 'f' },
    ]),
    { when: 'a', 'parameters.body': 'b', 'parameters.to': 'c; d', name: 'e', '': 'f' },
  );
});

test('a dry run that fails names its field', () => {
  assert.deepEqual(failures({ detail: 'parameters.body: undefined value, at `message.x`' }), [{ field: 'parameters.body', problem: 'undefined value, at `message.x`' }]);
  assert.deepEqual(failures({ errors: [{ field: 'when', problem: 'x' }] }), [{ field: 'when', problem: 'x' }]);
  assert.deepEqual(failures({ cause: 'template_limit' }), [{ field: '', problem: 'template_limit' }]);
});

test('ready-made rules have keys and names of their own', () => {
  for (const name of /** @type {const} */ (['key'])) assert.equal(new Set(READY.map((each) => each[name])).size, READY.length);
  assert.equal(new Set(READY.map((each) => each.spec.name)).size, READY.length);
});

test('fields are named as expressions name them, to a depth and a number', () => {
  const paths = (/** @type {any} */ value, most = 400) => pathsOf(value, 'm', most).map(({ path }) => path);
  assert.deepEqual(paths({ list: [{ a: 1 }, { b: 2 }], none: [], 'two words': 1, nothing: null }), ['m.list[0].a', 'm["two words"]', 'm.nothing']);
  const deep = (/** @type {number} */ depth) => (depth === 0 ? 1 : { d: deep(depth - 1) });
  assert.equal(paths(deep(8)).length, 1);
  assert.equal(paths(deep(9)).length, 0, 'too deep to be shown');
  const lists = (/** @type {number} */ depth) => (depth === 0 ? 1 : [lists(depth - 1)]);
  assert.deepEqual([paths(lists(8)).length, paths(lists(9)).length], [1, 0]);
  assert.deepEqual(paths({ a: 1, b: 2, c: 3 }, 2), ['m.a', 'm.b']);
});

test('the fields of a source stand under its names', () => {
  const first = (/** @type {string} */ source, /** @type {any} */ body) => fieldsOf(source, body)[0].path;
  assert.deepEqual([first('vapi', { message: { a: 1 } }), first('vapi', { a: 1 }), first('twilio', { message: { a: 1 } }), first('twilio', 'From=%2B1')], ['message.a', 'body.a', 'body.message.a', 'params.From']);
});

test('a draft begins switched on, and shows each value as it can be written', () => {
  assert.equal(emptyDraft().enabled, true);
  assert.equal(draftOf({}).source, 'vapi');
  assert.equal(draftOf({ source: 'twilio' }).source, 'twilio');
  const { parameters } = draftOf(/** @type {any} */ ({ parameters: { to: ['a', 'b'], mixed: ['a', 1] } }));
  assert.deepEqual([parameters.to, JSON.parse(parameters.mixed)], ['a\nb', ['a', 1]]);
});

test('what would fail is said in the API\'s own list, else out of its words', () => {
  assert.deepEqual(failures({ errors: [{ field: 'a', problem: 'b' }], detail: 'x' }), [{ field: 'a', problem: 'b' }]);
  assert.deepEqual(failures({ errors: [], detail: 'when: no' }), [{ field: 'when', problem: 'no' }]);
});
