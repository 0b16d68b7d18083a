// Who is signed in. With a session the browser keeps a cookie that no script can read; without one
// the token stays in memory and a reload forgets it.

/**
 * @typedef {Partial<import('../types/api.d.ts').Me> & {can: string[]}} Me
 */

/** Where this API does not say what a role may do, it decides at each request. @type {Me} */
const UNKNOWN = { can: ['read', 'retry', 'manage', 'connect'] };

export class Session {
  /** @param {import('./api.js').Api} api */
  constructor(api) {
    this.api = api;
    /** @type {Me | null} */
    this.me = null;
  }

  /** Whether the role may `read`, `retry` (actions and events), `manage` (configuration) or `connect`. @param {string} what */
  can(what) {
    return this.me !== null && this.me.can.includes(what);
  }

  /** Goes on with the cookie of an earlier page, where there is one. */
  async resume() {
    try {
      this.take(await this.api.get('/api/me'));
    } catch (error) {
      if (!isNobody(error)) throw error;
    }
    return this.me !== null;
  }

  /**
   * Signs in with a token.
   * @param {string} token
   */
  async begin(token) {
    this.api.forget();
    this.api.token = token.trim();
    try {
      const me = await this.api.post('/api/session');
      this.api.token = null;
      this.take(me);
    } catch (error) {
      if (!isMissing(error)) {
        this.api.forget();
        throw error;
      }
      await this.keepInMemory();
    }
  }

  /** An API without sessions: the token is tried, and stays in memory. */
  async keepInMemory() {
    try {
      await this.api.get('/api/integrations/status');
      this.me = UNKNOWN;
    } catch (error) {
      this.api.forget();
      throw error;
    }
  }

  async end() {
    try {
      if (this.api.token === null) await this.api.delete('/api/session');
    } finally {
      this.forget();
    }
  }

  forget() {
    this.api.forget();
    this.me = null;
  }

  /** @param {import('../types/api.d.ts').Me} me */
  take(me) {
    this.me = { ...UNKNOWN, ...me };
    this.api.csrf = me.csrf_token ?? null;
  }
}

/** @param {any} error */
function isMissing(error) {
  return error.status === 404 || error.status === 405;
}

/** @param {any} error */
function isNobody(error) {
  return error.status === 401 || isMissing(error);
}
