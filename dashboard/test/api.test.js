// Requests: what goes out, what comes back, and what the network does.

import test from 'node:test';
import assert from 'node:assert/strict';
import { address, Api, ApiError, freshKey } from '../lib/api.js';
import texts from '../texts.js';

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
  assert.equal(address('/api/events', { a: undefined, b: false, c: 0, d: true }), '/api/events?c=0&d=true');
  assert.equal(address('/api/events'), '/api/events');
  assert.equal(address('/api/events', { source: '' }), '/api/events');
});

test('a request asks this host alone, keeps nothing, and says what it takes and sends', async () => {
  const { made, asked } = api((_, { method }) => (method === 'DELETE' ? new Response(null, { status: 204 }) : json({ a: 1 })));
  assert.deepEqual(await made.get('/api/rules', { limit: 2 }), { a: 1 });
  await made.post('/api/rules', { b: 2 });
  await made.patch('/api/rules/1', { b: 3 }, { etag: '"1"' });
  await made.put('/api/rules/1', null);
  assert.equal(await made.delete('/api/rules/1', { query: { now: true } }), null);
  assert.deepEqual(asked.map(({ method, url, body, headers }) => [method, url, body, headers['content-type'], headers['if-match']]), [
    ['GET', '/api/rules?limit=2', undefined, undefined, undefined],
    ['POST', '/api/rules', '{"b":2}', 'application/json', undefined],
    ['PATCH', '/api/rules/1', '{"b":3}', 'application/json', '"1"'],
    ['PUT', '/api/rules/1', 'null', 'application/json', undefined],
    ['DELETE', '/api/rules/1?now=true', undefined, undefined, undefined],
  ]);
  for (const { credentials, cache, headers } of asked) assert.deepEqual([credentials, cache, headers.accept], ['same-origin', 'no-store', 'application/json']);
  assert.deepEqual(asked.map(({ headers }) => Object.keys(headers).length), [1, 2, 3, 2, 1], 'no header of a session that is not there');
});

test('a key is another one each time, and none where the browser makes none', (t) => {
  assert.notEqual(freshKey(), freshKey());
  assert.match(freshKey() ?? '', /^[0-9a-f-]{36}$/);
  const real = Object.getOwnPropertyDescriptor(globalThis, 'crypto');
  t.after(() => Object.defineProperty(globalThis, 'crypto', /** @type {any} */ (real)));
  for (const value of [undefined, {}]) {
    Object.defineProperty(globalThis, 'crypto', { value, configurable: true });
    assert.equal(freshKey(), null);
  }
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
  assert.deepEqual(asked.map(({ headers }) => headers['if-none-match']), [undefined, '"a"']);
});

test('what is known belongs to one address and one person, and only reads are', async () => {
  const { made, asked } = api((url) => json({ url }, 200, url === '/api/bare' ? {} : { etag: `"${url}"` }));
  await made.post('/api/a');
  await made.get('/api/bare');
  await made.get('/api/a');
  await made.get('/api/a', { source: 'vapi' });
  await made.get('/api/bare');
  await made.patch('/api/a', {});
  made.forget();
  await made.get('/api/a');
  assert.deepEqual(asked.map(({ headers }) => headers['if-none-match']), Array(7).fill(undefined));
});

test('of many answers the newest forty are known', async () => {
  const { made } = api((url) => json({}, 200, { etag: `"${url}"` }));
  for (let at = 0; at < 40; at += 1) await made.get(`/api/${at}`);
  // The first is read once more, so that the second is the oldest.
  await made.get('/api/0');
  assert.equal(made.known.size, 40);
  await made.get('/api/40');
  assert.deepEqual([made.known.size, made.known.has('/api/0'), made.known.has('/api/1'), made.known.has('/api/2')], [40, true, false, true]);
});

test('a 304 that nobody asked for is no answer', async () => {
  const { made } = api(() => new Response(null, { status: 304 }));
  await assert.rejects(made.get('/api/events'), (/** @type {any} */ error) => error.status === 304);
});

test('a refusal has the words of the API', async () => {
  const { made } = api(() => json({ code: 'invalid_field', detail: 'No.', errors: [{ field: 'a', problem: 'b' }], request_id: 'R' }, 400));
  await assert.rejects(made.post('/api/rules', {}), (/** @type {any} */ error) => {
    assert.ok(error instanceof ApiError);
    assert.deepEqual([error.status, error.code, error.message, error.errors, error.requestId], [400, 'invalid_field', 'No.', [{ field: 'a', problem: 'b' }], 'R']);
    return true;
  });
});

test('a refusal says the most exact thing that is known', () => {
  const message = (/** @type {string} */ code, /** @type {any} */ problem) => new ApiError(400, code, problem).message;
  assert.equal(message('timeout', { detail: 'D', title: 'T' }), 'D');
  assert.equal(message('timeout', { title: 'T' }), 'T');
  assert.equal(message('timeout', {}), texts.errors.timeout);
  assert.equal(message('of nobody', {}), texts.errors.other);
  const bare = new ApiError(400, 'other', /** @type {any} */ ({ errors: 'none' }));
  assert.deepEqual([bare.errors, bare.provider, bare.requestId, bare.etag], [[], null, null, null]);
  const provider = { name: 'Twilio', message: 'No', http_status: 400, code: null };
  assert.deepEqual(new ApiError(400, 'other', { provider }).provider, provider);
});

test('a refusal has the tag that is stored now, and a code also where the body has none', async () => {
  const { made } = api(() => json({ title: 'Changed' }, 412, { etag: '"2"' }));
  await assert.rejects(made.patch('/api/rules/1', {}), (/** @type {any} */ error) => {
    assert.deepEqual([error.code, error.message, error.etag], ['other', 'Changed', '"2"']);
    return true;
  });
  for (const body of ['"a text"', 'null', '']) {
    const { made: other } = api(() => new Response(body, { status: 500 }));
    await assert.rejects(other.get('/api/rules'), (/** @type {any} */ error) => error.code === 'other' && error.problem !== null);
  }
});

test('an answer that is no JSON is a refusal all the same', async () => {
  const { made } = api(() => new Response('<html>', { status: 502 }));
  await assert.rejects(made.get('/api/rules'), (/** @type {any} */ error) => error.status === 502 && error.message !== '');
});

test('an answer that is good and no JSON has no body', async () => {
  for (const body of ['<html>', '']) {
    const { made } = api(() => new Response(body));
    assert.equal(await made.get('/api/rules'), null);
  }
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

test('only the end of a session is told as one', async () => {
  for (const status of [400, 403, 404, 500]) {
    const { made } = api(() => json({}, status));
    made.onExpired = () => assert.fail('the session has not ended');
    await assert.rejects(made.get('/api/rules'));
    await assert.rejects(made.stream(new AbortController().signal));
  }
});

test('a request that its page has ended is neither a refusal nor an outage', async () => {
  const ended = new AbortController();
  const { made } = api((_, { signal }) => new Promise((_resolve, reject) => signal.addEventListener('abort', () => reject(signal.reason))));
  const asking = made.get('/api/rules', undefined, ended.signal);
  ended.abort(new Error('left'));
  await assert.rejects(asking, (/** @type {any} */ error) => !(error instanceof ApiError) && error.message === 'left');
});

test('an answer that takes too long is told apart from a network that is away', async (t) => {
  const clock = new AbortController();
  /** @type {number[]} */
  const waits = [];
  const real = AbortSignal.timeout;
  t.after(() => (AbortSignal.timeout = real));
  AbortSignal.timeout = (ms) => (waits.push(ms), clock.signal);
  const { made } = api((_, { signal }) => new Promise((_resolve, reject) => signal.addEventListener('abort', () => reject(signal.reason))));
  const asking = [made.get('/api/rules'), made.get('/api/rules', undefined, new AbortController().signal)];
  clock.abort();
  for (const one of asking) await assert.rejects(one, (/** @type {any} */ error) => error.status === 0 && error.code === 'timeout');
  assert.deepEqual(waits, [20_000, 20_000]);
});

test('the stream is opened as every request, and read as it comes', async () => {
  const bytes = new TextEncoder().encode('data: ä\n\n');
  let isEnded = false;
  const body = () =>
    new ReadableStream({
      start: (to) => [bytes.slice(0, 7), bytes.slice(7)].forEach((part) => to.enqueue(part)),
      cancel: () => void (isEnded = true),
    });
  const { made, asked } = api(() => new Response(body()));
  const { signal } = new AbortController();
  made.token = 'T';
  let text = '';
  for await (const part of await made.stream(signal)) {
    text += part;
    if (text.endsWith('\n\n')) break;
  }
  assert.deepEqual([text, isEnded], ['data: ä\n\n', true], 'a letter in two parts is one letter');
  made.token = null;
  await made.stream(signal);
  const [first, second] = asked;
  assert.deepEqual([first.url, first.credentials, first.cache, first.signal], ['/api/stream', 'same-origin', 'no-store', signal]);
  assert.deepEqual([first.headers, second.headers], [{ accept: 'text/event-stream', authorization: 'Bearer T' }, { accept: 'text/event-stream' }]);
});

test('a stream that ends is over, and one without a body is none', async () => {
  const { made } = api(() => new Response('data: 1\n\n'));
  let text = '';
  for await (const part of await made.stream(new AbortController().signal)) text += part;
  assert.equal(text, 'data: 1\n\n');
  const { made: bare } = api(() => new Response(null, { status: 204 }));
  await assert.rejects(bare.stream(new AbortController().signal), (/** @type {any} */ error) => error instanceof ApiError && error.status === 204);
});

test('a stream that is refused because the session has ended says so', async () => {
  let told = 0;
  const { made } = api(() => json({}, 401));
  made.onExpired = () => (told += 1);
  await assert.rejects(made.stream(new AbortController().signal), (/** @type {any} */ error) => error.status === 401 && error.code === 'other');
  assert.equal(told, 1);
});
