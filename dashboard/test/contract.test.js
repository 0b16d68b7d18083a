// Every request that the dashboard makes is an operation of the OpenAPI document.

import test from 'node:test';
import assert from 'node:assert/strict';
import { existsSync, readdirSync, readFileSync } from 'node:fs';

const root = new URL('../', import.meta.url);
const source = new URL('../schemas/openapi.json', root);
/** Without a document there is nothing to hold the requests against. */
const skip = existsSync(source) ? false : 'there is no schemas/openapi.json yet';
const document = skip ? { paths: {} } : JSON.parse(readFileSync(source, 'utf8'));

/** Segments of a path; what is put in is `*`. @param {string} path */
const segments = (path) => path.split('/').map((segment) => (/[{]/.test(segment) ? '*' : segment));

/** The operations of the document. @type {{method: string, path: string[]}[]} */
const operations = Object.entries(document.paths).flatMap(([path, methods]) =>
  Object.keys(methods).map((method) => ({ method, path: segments(path) })),
);

/** @param {string} method @param {string} path */
function isKnown(method, path) {
  const asked = segments(path);
  return operations.some(
    (operation) =>
      operation.method === method &&
      operation.path.length === asked.length &&
      operation.path.every((segment, at) => segment === asked[at] || segment === '*' || asked[at] === '*'),
  );
}

test('each request of the dashboard is in the document', { skip }, () => {
  const files = ['app.js', ...['lib', 'parts', 'views'].flatMap((folder) => readdirSync(new URL(folder, root)).map((name) => `${folder}/${name}`))];
  let found = 0;
  for (const file of files) {
    const text = readFileSync(new URL(file, root), 'utf8');
    const calls = [...text.matchAll(/\bapi\.(get|post|put|patch|delete)\(\s*(?:'([^']*)'|`([^`]*)`)/g)].map(([, method, one, other]) => [method, one ?? other]);
    const lists = [...text.matchAll(/\bpath: ['`](\/(?:api|operator)\/[^'`]*)['`]/g)].map(([, path]) => ['get', path]);
    const streams = [...text.matchAll(/\bfetcher\('([^']*)'/g)].map(([, path]) => ['get', path]);
    for (const [method, path] of [...calls, ...lists, ...streams]) {
      found += 1;
      assert.ok(isKnown(method, path), `${file}: ${method} ${path} is no operation of the API`);
    }
  }
  assert.ok(found > 30, `${found} requests were found`);
});
