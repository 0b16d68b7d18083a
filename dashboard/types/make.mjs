// Types of the admin API's answers, from its OpenAPI document: types/api.d.ts.
//
//   node types/make.mjs           writes the file
//   node types/make.mjs --check   fails where the file is not what the document says

import { existsSync, readFileSync, writeFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';

/**
 * A schema as a type.
 * @param {any} schema
 * @param {string} [indent]
 * @returns {string}
 */
export function typeOf(schema, indent = '') {
  if (schema === true || schema === undefined || Object.keys(schema).length === 0) return 'any';
  if (schema.$ref) return schema.$ref.split('/').at(-1);
  if (schema.const !== undefined) return JSON.stringify(schema.const);
  if (schema.enum) return union(schema.enum.map((/** @type {any} */ each) => JSON.stringify(each)));
  const choice = schema.oneOf ?? schema.anyOf;
  if (choice) return union(choice.map((/** @type {any} */ each) => typeOf(each, indent)));
  if (schema.allOf) return schema.allOf.map((/** @type {any} */ each) => typeOf(each, indent)).join(' & ') + (schema.properties ? ` & ${objectOf(schema, indent)}` : '');
  if (Array.isArray(schema.type)) return union(schema.type.map((/** @type {string} */ type) => typeOf({ ...schema, type }, indent)));
  switch (schema.type) {
    case 'string':
      return 'string';
    case 'integer':
    case 'number':
      return 'number';
    case 'boolean':
      return 'boolean';
    case 'null':
      return 'null';
    case 'array':
      return `Array<${typeOf(schema.items, indent)}>`;
    default:
      return objectOf(schema, indent);
  }
}

/** @param {string[]} types */
function union(types) {
  return [...new Set(types)].join(' | ');
}

/** @param {any} schema @param {string} indent */
function objectOf(schema, indent) {
  const required = new Set(schema.required ?? []);
  const inner = `${indent}  `;
  const lines = Object.entries(schema.properties ?? {}).map(([name, each]) => `${inner}${JSON.stringify(name)}${required.has(name) ? '' : '?'}: ${typeOf(each, inner)};`);
  const more = schema.additionalProperties;
  if (lines.length === 0) return `Record<string, ${more && more !== true ? typeOf(more, indent) : 'any'}>`;
  return `{\n${lines.join('\n')}\n${indent}}`;
}

/** @param {any} document */
export function fileOf(document) {
  const schemas = Object.entries(document.components.schemas).sort(([one], [other]) => (one < other ? -1 : 1));
  const types = schemas.map(([name, schema]) => `export type ${name} = ${typeOf(schema)};\n`);
  return `// Made by types/make.mjs from schemas/openapi.json.\n\n${types.join('\n')}`;
}

const source = new URL('../../schemas/openapi.json', import.meta.url);

if (process.argv[1] === fileURLToPath(import.meta.url) && !existsSync(source)) {
  console.error('dashboard/types: there is no schemas/openapi.json yet, so the types are not held against it');
} else if (process.argv[1] === fileURLToPath(import.meta.url)) {
  const document = JSON.parse(readFileSync(source, 'utf8'));
  const to = new URL('./api.d.ts', import.meta.url);
  const made = fileOf(document);
  if (!process.argv.includes('--check')) writeFileSync(to, made);
  else if (readFileSync(to, 'utf8') !== made) {
    console.error('dashboard/types/api.d.ts is not what schemas/openapi.json says: run `node types/make.mjs` in dashboard/');
    process.exit(1);
  }
}
