// An assistant that is kept at Vapi, between its form and Vapi's fields.

import test from 'node:test';
import assert from 'node:assert/strict';
import { bodyOf, formOf, TONES } from '../lib/kept.js';

test('a form that is saved untouched changes nothing', () => {
  const system = { role: 'system', content: 'Be brief.' };
  const assistants = [
    {},
    { firstMessage: 'Hello', model: { provider: 'openai', model: 'gpt-4o', messages: [system] } },
    { firstMessage: '', voice: { provider: '11labs' } },
    { firstMessage: ['Hello'], model: 'gpt-4o' },
    { model: { provider: 'openai', model: 'gpt-4o', temperature: 0, tools: [{ type: 'endCall' }] } },
    { model: { provider: 'openai', model: 'gpt-4o', messages: [system, { role: 'user', content: 'Hi' }] } },
    { model: { provider: 'openai', model: 'gpt-4o', messages: [{ ...system, name: 'a' }] } },
    { model: { provider: 'openai', model: 'gpt-4o', messages: [null] } },
    { model: { provider: 'openai' } },
    { model: { provider: '', model: '', messages: [system] } },
  ];
  for (const assistant of assistants) {
    const sent = bodyOf(formOf({ name: 'Front desk', assistant }));
    assert.deepEqual(sent, { body: { name: 'Front desk', assistant } }, JSON.stringify(assistant));
  }
});

test('what a person typed becomes the fields of Vapi', () => {
  const form = { ...formOf(null), name: 'Front desk', first: 'Hello', instructions: 'Be brief.', more: '{"voice": {"provider": "11labs"}, "model": {"temperature": 0}}' };
  const model = { provider: 'openai', model: 'gpt-4o', messages: [{ role: 'system', content: 'Be brief.' }], temperature: 0 };
  assert.deepEqual(bodyOf(form), { body: { name: 'Front desk', assistant: { voice: { provider: '11labs' }, firstMessage: 'Hello', model } } });
});

test('what cannot be sent is said at its field', () => {
  const form = formOf(null);
  /** @type {[Partial<typeof form>, string, string][]} */
  const table = [
    [{ more: '{' }, 'more', 'json'],
    [{ more: '[]' }, 'more', 'object'],
    [{ more: 'null' }, 'more', 'object'],
    [{ first: 'Hello', more: '{"firstMessage": "Hi"}' }, 'more', 'twice'],
    [{ more: '{"model": {"model": "gpt-4o-mini"}}' }, 'more', 'twice'],
    [{ more: '{"model": "gpt-4o"}' }, 'more', 'twice'],
    [{ model: '' }, 'model', 'both'],
    [{ provider: '', model: '', instructions: 'Be brief.' }, 'provider', 'both'],
  ];
  for (const [change, field, problem] of table) assert.deepEqual(bodyOf({ ...form, ...change }), { field, problem }, JSON.stringify(change));
});

test('an assistant that differs or is gone stands out', () => {
  assert.deepEqual(TONES, { in_step: 'good', drifted: 'warn', making: 'quiet', missing: 'bad' });
});
