// Types from schemas.

import test from 'node:test';
import assert from 'node:assert/strict';
import { fileOf, typeOf } from '../types/make.mjs';

test('schemas as types', () => {
  /** @type {[any, string][]} */
  const table = [
    [{ type: 'string' }, 'string'],
    [{ type: ['integer', 'null'] }, 'number | null'],
    [{ enum: ['a', 'b'] }, '"a" | "b"'],
    [{ type: 'array', items: { $ref: '#/components/schemas/Rule' } }, 'Array<Rule>'],
    [{ oneOf: [{ type: 'null' }, { $ref: '#/components/schemas/Rule' }] }, 'null | Rule'],
    [{ allOf: [{ $ref: '#/components/schemas/A' }, { type: 'object', properties: { b: { const: 1 } } }] }, 'A & {\n  "b"?: 1;\n}'],
    [{ type: 'object', required: ['a'], properties: { a: { type: 'boolean' } } }, '{\n  "a": boolean;\n}'],
    [{ type: 'object', additionalProperties: { type: 'string' } }, 'Record<string, string>'],
    [{}, 'any'],
  ];
  for (const [schema, type] of table) assert.equal(typeOf(schema), type);
});

test('a file has its types in order', () => {
  const made = fileOf({ components: { schemas: { B: { type: 'string' }, A: { type: 'null' } } } });
  assert.match(made, /export type A = null;\n\nexport type B = string;\n$/);
});
