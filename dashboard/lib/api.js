// One function for all requests to the admin API. A refusal is an ApiError with the API's own
// words; what the network does is told apart from what the API says.

import { Live } from './live.js';
import texts from '../texts.js';

/**
 * @typedef {import('../types/api.d.ts').FieldError} FieldError
 * @typedef {import('../types/api.d.ts').Problem} Problem
 */

/** What the API refused, or why it could not be asked. */
export class ApiError extends Error {
  /**
   * @param {number} status 0 where no answer came
   * @param {string} code the API's stable code, or `offline`, `timeout`
   * @param {Partial<Problem>} problem the body of the refusal
   * @param {string | null} etag
   */
  constructor(status, code, problem, etag = null) {
    super(problem.detail ?? problem.title ?? texts.errors[code] ?? texts.errors.other);
    this.status = status;
    this.code = code;
    this.problem = problem;
    this.etag = etag;
    /** @type {FieldError[]} */
    this.errors = Array.isArray(problem.errors) ? problem.errors : [];
    /** @type {Problem['provider'] | null} */
    this.provider = problem.provider ?? null;
    /** @type {string | null} */
    this.requestId = problem.request_id ?? null;
  }
}

const TIMEOUT_MS = 20_000;

/**
 * @typedef {object} Call
 * @property {any} [body]
 * @property {Record<string, string | string[] | number | boolean | null | undefined>} [query]
 * @property {string | null} [etag] sent as `If-Match`
 * @property {string | null} [key] sent as `Idempotency-Key`: a request that got no answer can be sent again
 * @property {AbortSignal} [signal]
 */

/** The address of a request, with its query. @param {string} path @param {Call['query']} [query] */
export function address(path, query) {
  const params = new URLSearchParams();
  for (const [name, value] of Object.entries(query ?? {})) {
    if (value === null || value === undefined || value === '' || value === false) continue;
    params.set(name, Array.isArray(value) ? value.join(',') : String(value));
  }
  const text = params.toString();
  return text === '' ? path : `${path}?${text}`;
}

/** A key for a request that makes something. @returns {string | null} `null` where the browser gives none */
export function freshKey() {
  return globalThis.crypto?.randomUUID?.() ?? null;
}

/** Speaks for one signed-in person. */
export class Api {
  /** @param {typeof fetch} [fetcher] */
  constructor(fetcher) {
    this.fetcher = fetcher ?? ((input, init) => fetch(input, init));
    /** In memory only: a reload forgets it. @type {string | null} */
    this.token = null;
    /** What a session's cookie needs beside it for writes. @type {string | null} */
    this.csrf = null;
    /** Called when the API no longer takes the token or the cookie. */
    this.onExpired = () => {};
    /** Entity tags and bodies of reads, so that an unchanged answer costs no body. @type {Map<string, {etag: string, data: any}>} */
    this.known = new Map();
    /** Says when to look again. */
    this.live = new Live({ open: (signal) => this.stream(signal), ended: () => this.onExpired() });
  }

  /**
   * @param {string} method
   * @param {string} path
   * @param {Call} [call]
   * @returns {Promise<any>} the body; `null` for an answer without one
   */
  async request(method, path, call = {}) {
    const url = address(path, call.query);
    /** @type {Record<string, string>} */
    const headers = { accept: 'application/json' };
    if (this.token !== null) headers.authorization = `Bearer ${this.token}`;
    const isRead = method === 'GET';
    if (!isRead && this.token === null && this.csrf !== null) headers['x-csrf-token'] = this.csrf;
    if (call.body !== undefined) headers['content-type'] = 'application/json';
    if (call.etag) headers['if-match'] = call.etag;
    if (call.key) headers['idempotency-key'] = call.key;
    const known = isRead ? this.known.get(url) : undefined;
    if (known) headers['if-none-match'] = known.etag;

    const timeout = AbortSignal.timeout(TIMEOUT_MS);
    const signal = call.signal ? AbortSignal.any([call.signal, timeout]) : timeout;
    let response;
    let text;
    try {
      response = await this.fetcher(url, {
        method,
        headers,
        body: call.body === undefined ? undefined : JSON.stringify(call.body),
        signal,
        credentials: 'same-origin',
        cache: 'no-store',
      });
      text = await response.text();
    } catch (error) {
      if (call.signal?.aborted) throw error;
      throw new ApiError(0, timeout.aborted ? 'timeout' : 'offline', {});
    }
    if (response.status === 304 && known) return known.data;
    const data = parse(text);
    if (!response.ok) {
      const problem = data !== null && typeof data === 'object' ? data : {};
      const refused = new ApiError(response.status, problem.code ?? 'other', problem, response.headers.get('etag'));
      if (response.status === 401) this.onExpired();
      throw refused;
    }
    const etag = response.headers.get('etag');
    if (isRead && etag) this.remember(url, etag, data);
    return data;
  }

  /**
   * Opens the stream of changes: by a header or the cookie, as every request.
   * @param {AbortSignal} signal
   * @returns {Promise<AsyncIterable<string>>} its text as it comes
   */
  async stream(signal) {
    /** @type {Record<string, string>} */
    const headers = { accept: 'text/event-stream' };
    if (this.token !== null) headers.authorization = `Bearer ${this.token}`;
    const response = await this.fetcher('/api/stream', { headers, signal, credentials: 'same-origin', cache: 'no-store' });
    if (!response.ok || response.body === null) {
      if (response.status === 401) this.onExpired();
      throw new ApiError(response.status, 'other', {});
    }
    return chunks(response.body);
  }

  /** @param {string} url @param {string} etag @param {any} data */
  remember(url, etag, data) {
    this.known.delete(url);
    this.known.set(url, { etag, data });
    const oldest = this.known.size > 40 ? this.known.keys().next().value : undefined;
    if (oldest !== undefined) this.known.delete(oldest);
  }

  /** @param {string} path @param {Call['query']} [query] @param {AbortSignal} [signal] */
  get(path, query, signal) {
    return this.request('GET', path, { query, signal });
  }

  /** @param {string} path @param {any} [body] @param {Call} [call] */
  post(path, body, call) {
    return this.request('POST', path, { ...call, body });
  }

  /** @param {string} path @param {any} body @param {Call} [call] */
  patch(path, body, call) {
    return this.request('PATCH', path, { ...call, body });
  }

  /** @param {string} path @param {any} body @param {Call} [call] */
  put(path, body, call) {
    return this.request('PUT', path, { ...call, body });
  }

  /** @param {string} path @param {Call} [call] */
  delete(path, call) {
    return this.request('DELETE', path, call);
  }

  /** Forgets everything of the person. */
  forget() {
    this.token = null;
    this.csrf = null;
    this.known.clear();
  }
}

/** @param {ReadableStream<Uint8Array>} body */
async function* chunks(body) {
  const reader = body.getReader();
  const decoder = new TextDecoder();
  try {
    for (;;) {
      const { done, value } = await reader.read();
      if (done) return;
      yield decoder.decode(value, { stream: true });
    }
  } finally {
    reader.cancel().catch(() => {});
  }
}

/** @param {string} text */
function parse(text) {
  if (text === '') return null;
  try {
    return JSON.parse(text);
  } catch {
    return null;
  }
}
