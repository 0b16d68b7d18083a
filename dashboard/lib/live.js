// Says when a part of the page has to look again: at once where a stream names its lists, and every
// few seconds while there is no stream. It knows no element and no network; both are given to it.

/**
 * `off`: nobody looks, or nothing is known yet. `polling`: there is no stream. `live`: there is one.
 * @typedef {'off' | 'polling' | 'live'} State
 * @typedef {{event: string, data: string}} Message
 */

/**
 * @typedef {object} Watch a part of the page
 * @property {string[]} lists what it shows; without a list it is polled always
 * @property {() => Promise<unknown>} look
 * @property {number} everyMs without a stream
 * @property {boolean} isBusy
 * @property {boolean} isWanted a change was told while it was busy
 * @property {ReturnType<typeof setTimeout> | undefined} timer
 */

export const POLL_MS = 5_000;
/** Beside a stream, for what a stream does not see. */
export const SLOW_MS = 60_000;
/** The server says something every 15 seconds. */
export const SILENCE_MS = 40_000;
/** A page that goes to another page keeps its stream. */
export const LINGER_MS = 1_000;
export const RETRY_MS = 3_000;
export const RETRY_MS_MAX = 60_000;

/** Messages out of the text of a stream, however it is cut. */
export class Messages {
  rest = '';
  /** How long the server asks to wait before another try. @type {number | null} */
  retryMs = null;

  /** @param {string} text @returns {Message[]} those that are whole now */
  push(text) {
    const parts = (this.rest + text).replaceAll('\r\n', '\n').split('\n\n');
    this.rest = parts.pop() ?? '';
    return parts.map((part) => this.read(part)).filter((message) => message !== null);
  }

  /** @param {string} part @returns {Message | null} `null` for a comment */
  read(part) {
    let event = 'message';
    /** @type {string[]} */
    const data = [];
    for (const line of part.split('\n')) {
      const at = line.indexOf(':');
      const name = at < 0 ? line : line.slice(0, at);
      const value = at < 0 ? '' : line.slice(at + 1).replace(/^ /, '');
      if (name === 'event') event = value;
      else if (name === 'data') data.push(value);
      else if (name === 'retry' && /^\d+$/.test(value)) this.retryMs = Number(value);
    }
    return data.length === 0 ? null : { event, data: data.join('\n') };
  }
}

/**
 * The wait before a try: it doubles, and is spread so that pages do not come back together.
 * @param {number} tries that failed before @param {number} firstMs @param {number} random from 0 to 1
 */
export function waitMs(tries, firstMs, random) {
  return Math.min(RETRY_MS_MAX, firstMs * 2 ** Math.min(tries, 10)) * (0.5 + random / 2);
}

/** @param {string} data @param {string} name @returns {any} */
function field(data, name) {
  try {
    return JSON.parse(data)?.[name];
  } catch {
    return undefined;
  }
}

export class Live {
  /** @type {State} */
  state = 'off';
  mayConnect = false;
  isVisible = true;
  /** @type {Set<Watch>} */
  watches = new Set();
  /** @type {Set<() => void>} */
  listeners = new Set();
  /** The stream that is open, or being opened. @type {AbortController | null} */
  connection = null;
  tries = 0;

  /**
   * @param {object} given
   * @param {(signal: AbortSignal) => Promise<AsyncIterable<string>>} given.open rejects where it is refused
   * @param {() => void} given.ended the token or the session has ended
   * @param {() => number} [given.random]
   */
  constructor({ open, ended, random = Math.random }) {
    this.open = open;
    this.ended = ended;
    this.random = random;
  }

  /** Whether somebody is signed in who may have a stream. @param {boolean} may */
  allow(may) {
    if (may === this.mayConnect) return;
    this.mayConnect = may;
    this.tries = 0;
    this.settle();
  }

  /** Looks at everything when the page is looked at again. A hidden page holds no connection. @param {boolean} isVisible */
  show(isVisible) {
    if (isVisible === this.isVisible) return;
    this.isVisible = isVisible;
    this.tries = 0;
    this.settle();
    for (const watch of this.watches) if (isVisible) this.look(watch);
      else clearTimeout(watch.timer);
  }

  /** The network is back. */
  online() {
    this.tries = 0;
    this.settle();
    for (const watch of this.watches) this.look(watch);
  }

  /**
   * @param {string[]} lists
   * @param {() => Promise<unknown>} look
   * @param {number} [everyMs]
   * @returns {() => void} ends it
   */
  watch(lists, look, everyMs = POLL_MS) {
    /** @type {Watch} */
    const watch = { lists, look, everyMs, isBusy: false, isWanted: false, timer: undefined };
    this.watches.add(watch);
    this.later(watch);
    this.settle();
    return () => {
      clearTimeout(watch.timer);
      if (this.watches.delete(watch)) this.settle();
    };
  }

  /** Tells of each change of the state. @param {() => void} changed @returns {() => void} ends it */
  listen(changed) {
    this.listeners.add(changed);
    return () => this.listeners.delete(changed);
  }

  /** @param {Watch} watch */
  async look(watch) {
    clearTimeout(watch.timer);
    if (!this.isVisible || !this.watches.has(watch)) return;
    if (watch.isBusy) {
      watch.isWanted = true;
      return;
    }
    do {
      watch.isWanted = false;
      watch.isBusy = true;
      await watch.look().catch(() => {});
      watch.isBusy = false;
    } while (watch.isWanted && this.isVisible && this.watches.has(watch));
    this.later(watch);
  }

  /** @param {Watch} watch */
  later(watch) {
    clearTimeout(watch.timer);
    if (!this.isVisible || !this.watches.has(watch)) return;
    const isTold = this.state === 'live' && watch.lists.length > 0;
    watch.timer = setTimeout(() => this.look(watch), isTold ? SLOW_MS : watch.everyMs);
  }

  /** Opens the stream where one is wanted, and closes it where none is. */
  settle() {
    clearTimeout(this.closing);
    clearTimeout(this.retrying);
    const isWatched = [...this.watches].some((watch) => watch.lists.length > 0);
    if (!this.mayConnect || !this.isVisible) this.close();
    else if (!isWatched) this.closing = setTimeout(() => this.close(), LINGER_MS);
    else if (this.connection === null) this.connect();
  }

  close() {
    clearTimeout(this.silence);
    clearTimeout(this.retrying);
    const { connection } = this;
    this.connection = null;
    connection?.abort();
    this.become('off');
  }

  async connect() {
    const own = (this.connection = new AbortController());
    const messages = new Messages();
    try {
      this.hear(own);
      for await (const text of await this.open(own.signal)) {
        if (own.signal.aborted) break;
        this.hear(own);
        for (const message of messages.push(text)) this.take(message);
      }
    } catch {
      // Refused, cut off, or silent: the same is done.
    }
    if (this.connection !== own) return;
    clearTimeout(this.silence);
    this.connection = null;
    this.become('polling');
    const wait = waitMs(this.tries, messages.retryMs ?? RETRY_MS, this.random());
    this.tries += 1;
    this.retrying = setTimeout(() => this.settle(), wait);
  }

  /** A stream that says nothing is none, whatever the network says. @param {AbortController} own */
  hear(own) {
    clearTimeout(this.silence);
    this.silence = setTimeout(() => own.abort(), SILENCE_MS);
  }

  /** @param {Message} message */
  take({ event, data }) {
    if (event === 'end' && field(data, 'reason') !== 'stopping') this.ended();
    if (event !== 'changed') return;
    const lists = field(data, 'lists');
    if (!Array.isArray(lists)) return;
    this.tries = 0;
    this.become('live');
    for (const watch of this.watches) if (watch.lists.some((list) => lists.includes(list))) this.look(watch);
  }

  /** @param {State} state */
  become(state) {
    if (state === this.state) return;
    this.state = state;
    for (const watch of this.watches) if (!watch.isBusy) this.later(watch);
    for (const changed of this.listeners) changed();
  }
}
