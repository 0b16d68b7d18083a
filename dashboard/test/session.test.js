// Who is signed in, and what is forgotten.

import test from 'node:test';
import assert from 'node:assert/strict';
import { Api } from '../lib/api.js';
import { Session } from '../lib/session.js';

/**
 * A session before an API that answers each request by its method and path.
 * @param {Record<string, [number, any]>} answers
 */
function session(answers) {
  /** @type {string[]} */
  const asked = [];
  const api = new Api(
    /** @type {any} */ (
      async (/** @type {string} */ url, /** @type {any} */ { method, headers }) => {
        const name = `${method} ${url}`;
        asked.push(headers.authorization ? `${name} with ${headers.authorization}` : name);
        const [status, body] = answers[name] ?? [500, {}];
        return new Response(body === null ? null : JSON.stringify(body), { status });
      }
    ),
  );
  return { api, asked, made: new Session(api) };
}

const me = { organisation: { id: 'O', name: 'N' }, role: 'viewer', can: ['read'], csrf_token: 'C' };

test('a session goes on by its cookie', async () => {
  const { api, asked, made } = session({ 'GET /api/me': [200, me] });
  assert.equal(made.can('read'), false, 'nobody may do anything');
  assert.equal(await made.resume(), true);
  assert.deepEqual([made.me?.role, made.can('read'), made.can('retry'), api.csrf], ['viewer', true, false, 'C']);
  assert.deepEqual(asked, ['GET /api/me']);
});

test('where nobody is signed in, or there are no sessions, nobody goes on', async () => {
  for (const status of [401, 404, 405]) {
    const { made } = session({ 'GET /api/me': [status, {}] });
    assert.deepEqual([await made.resume(), made.me], [false, null], String(status));
  }
  const { made } = session({ 'GET /api/me': [503, { code: 'unavailable' }] });
  await assert.rejects(made.resume(), (/** @type {any} */ error) => error.status === 503);
});

test('an API that says no more than that somebody is there decides at each request', async () => {
  const { api, made } = session({ 'GET /api/me': [200, {}] });
  assert.equal(await made.resume(), true);
  assert.deepEqual([made.me, api.csrf], [{ can: ['read', 'retry', 'manage', 'connect'] }, null]);
});

test('signing in sends the token once, without its blanks, and forgets what was before', async () => {
  const { api, asked, made } = session({ 'POST /api/session': [201, me], 'GET /api/me': [200, me] });
  api.remember('/api/events', '"a"', {});
  api.csrf = 'of another';
  await made.begin(' T\n');
  await made.resume();
  assert.deepEqual(asked, ['POST /api/session with Bearer T', 'GET /api/me']);
  assert.deepEqual([api.token, api.csrf, api.known.size], [null, 'C', 0]);
});

test('a refusal of a token is told, and the token is forgotten', async () => {
  for (const [answers, status] of /** @type {[Record<string, [number, any]>, number][]} */ ([
    [{ 'POST /api/session': [401, { code: 'unauthenticated' }] }, 401],
    [{ 'POST /api/session': [503, {}] }, 503],
    [{ 'POST /api/session': [404, {}], 'GET /api/integrations/status': [401, {}] }, 401],
    [{ 'POST /api/session': [405, {}], 'GET /api/integrations/status': [503, {}] }, 503],
  ])) {
    const { api, made } = session(answers);
    await assert.rejects(made.begin('T'), (/** @type {any} */ error) => error.status === status);
    assert.deepEqual([api.token, made.me], [null, null], JSON.stringify(answers));
  }
});

test('without sessions the token stays in memory, and signing out asks nobody', async () => {
  const { api, asked, made } = session({ 'POST /api/session': [405, {}], 'GET /api/integrations/status': [200, {}] });
  await made.begin('T');
  assert.deepEqual([api.token, made.can('manage'), made.can('operate')], ['T', true, false]);
  await made.end();
  assert.deepEqual([api.token, made.me], [null, null]);
  assert.deepEqual(asked.slice(1), ['GET /api/integrations/status with Bearer T']);
});

test('signing out ends the session, and forgets the person also where that fails', async () => {
  const good = session({ 'GET /api/me': [200, me], 'DELETE /api/session': [204, null] });
  await good.made.resume();
  await good.made.end();
  assert.deepEqual([good.asked, good.made.me, good.api.csrf], [['GET /api/me', 'DELETE /api/session'], null, null]);
  const bad = session({ 'GET /api/me': [200, me], 'DELETE /api/session': [503, {}] });
  await bad.made.resume();
  await assert.rejects(bad.made.end());
  assert.deepEqual([bad.made.me, bad.api.csrf], [null, null]);
});
