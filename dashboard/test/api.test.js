// Requests: what goes out, what comes back, and what the network does.

import test from 'node:test';
import assert from 'node:assert/strict';
import { address, Api, ApiError } from '../lib/api.js';
import { Session } from '../lib/session.js';

/** @param {(url: string, init: any) => Response | Promise<Response>} answer */
function api(answer) {
  /** @type {any[]} */
  const asked = [];
  const made = new Api(/** @type {any} */ (async (/** @type {string} */ url, /** @type {any} */ init) => {
    asked.push({ url, ...init });
    return answer(url, init);
  }));
  return { made, asked };
}

const json = (/** @type {any} */ body, status = 200, headers = {}) => new Response(JSON.stringify(body), { status, headers });

test('an empty part of a query is left out', () => {
  assert.equal(address('/api/events', { source: 'vapi', type: '', cursor: null, state: ['dead', 'parked'] }), '/api/events?source=vapi&state=dead%2Cparked');
  assert.equal(address('/api/events'), '/api/events');
});

test('a token is sent as a bearer, and the header of the session only without one, for writes', async () => {
  const { made, asked } = api(() => json({}));
  made.csrf = 'C';
  await made.get('/api/me');
  await made.post('/api/rules', {}, { etag: '"1"' });
  made.token = 'T';
  await made.delete('/api/rules/1');
  assert.deepEqual(asked.map(({ headers }) => [headers.authorization, headers['x-csrf-token'], headers['if-match']]), [
    [undefined, undefined, undefined],
    [undefined, 'C', '"1"'],
    ['Bearer T', undefined, undefined],
  ]);
  assert.ok(asked.every(({ url }) => !url.includes('T')), 'no token stands in an address');
});

test('what may be sent twice has a key', async () => {
  const { made, asked } = api(() => json({}));
  await made.post('/api/rules', {}, { key: 'K' });
  await made.post('/api/rules', {}, { key: null });
  assert.deepEqual(asked.map(({ headers }) => headers['idempotency-key']), ['K', undefined]);
});

test('a read that has not changed costs no body', async () => {
  const { made, asked } = api((_, { headers }) => (headers['if-none-match'] ? new Response(null, { status: 304 }) : json({ data: [1] }, 200, { etag: '"a"' })));
  assert.deepEqual(await made.get('/api/events'), { data: [1] });
  assert.deepEqual(await made.get('/api/events'), { data: [1] });
  assert.equal(asked[1].headers['if-none-match'], '"a"');
});

test('a refusal has the words of the API', async () => {
  const { made } = api(() => json({ code: 'invalid_field', detail: 'No.', errors: [{ field: 'a', problem: 'b' }], request_id: 'R' }, 400));
  await assert.rejects(made.post('/api/rules', {}), (/** @type {any} */ error) => {
    assert.ok(error instanceof ApiError);
    assert.deepEqual([error.status, error.code, error.message, error.errors, error.requestId], [400, 'invalid_field', 'No.', [{ field: 'a', problem: 'b' }], 'R']);
    return true;
  });
});

test('an answer that is no JSON is a refusal all the same', async () => {
  const { made } = api(() => new Response('<html>', { status: 502 }));
  await assert.rejects(made.get('/api/rules'), (/** @type {any} */ error) => error.status === 502 && error.message !== '');
});

test('a network that is away is told apart from a refusal', async () => {
  const { made } = api(() => Promise.reject(new TypeError('Failed to fetch')));
  await assert.rejects(made.get('/api/rules'), (/** @type {any} */ error) => error.status === 0 && error.code === 'offline');
});

test('a session that has ended is told once, to whoever asks for the token', async () => {
  let told = 0;
  const { made } = api(() => json({ code: 'unauthenticated' }, 401));
  made.onExpired = () => (told += 1);
  await assert.rejects(made.get('/api/rules'));
  assert.equal(told, 1);
});

test('signing in takes a session where there is one, and forgets the token', async () => {
  const me = { organisation: { id: 'O', name: 'N' }, role: 'viewer', can: ['read'], csrf_token: 'C' };
  const { made } = api(() => json(me, 201));
  const session = new Session(made);
  await session.begin(' T ');
  assert.deepEqual([made.token, made.csrf, session.can('read'), session.can('manage')], [null, 'C', true, false]);
});

test('signing in without sessions keeps the token in memory', async () => {
  const { made } = api((url) => (url === '/api/session' ? json({}, 404) : json({ integrations: [] })));
  const session = new Session(made);
  await session.begin('T');
  assert.deepEqual([made.token, session.can('manage')], ['T', true]);
});

test('a token that is not valid is forgotten', async () => {
  const { made } = api(() => json({ code: 'unauthenticated' }, 401));
  const session = new Session(made);
  await assert.rejects(session.begin('T'));
  assert.deepEqual([made.token, session.me], [null, null]);
});
