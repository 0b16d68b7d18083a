// Small parts that every page uses.

import { h, replace } from '../lib/dom.js';
import { ago, exact } from '../lib/format.js';
import texts from '../texts.js';

/** @param {string} tone `good`, `warn`, `bad` or `quiet` @param {string} text @param {string} [state] */
export function badge(tone, text, state) {
  return h(`span.badge.${tone}`, { 'data-state': state }, text);
}

/** A time as people say it, with the exact one on hover. It stays true while the page is open. */
class RelativeTime extends HTMLElement {
  connectedCallback() {
    this.show();
    this.timer = setInterval(() => this.show(), 15_000);
  }

  disconnectedCallback() {
    clearInterval(this.timer);
  }

  show() {
    const at = this.getAttribute('at') ?? '';
    const text = ago(at, Date.now());
    if (this.textContent !== text) this.textContent = text;
  }
}
customElements.define('relative-time', RelativeTime);

/** @param {string | null | undefined} at */
export function time(at) {
  if (!at) return h('span', null, '–');
  return h('time', { datetime: at, title: exact(at) }, h('relative-time', { at }));
}

/** A text to copy, with its button. @param {string} text @param {string} label */
export function copyable(text, label) {
  const said = h('span.said', { role: 'status' });
  const button = h('button.small', { type: 'button', 'aria-label': `${texts.bits.copy}: ${label}` }, texts.bits.copy);
  button.addEventListener('click', async () => {
    try {
      await navigator.clipboard.writeText(text);
      said.textContent = texts.bits.copied;
    } catch {
      said.textContent = texts.bits.notCopied;
    }
  });
  return h('span.copyable', null, h('code', null, text), button, said);
}

/** @param {string} href @param {string} text */
export function outward(href, text) {
  return h('a', { href, target: '_blank', rel: 'noreferrer noopener' }, text, ' ', h('span.unseen', null, texts.bits.opensElsewhere));
}

/** The heading of a page. @param {string} title @param {string | null} lead @param {...any} more */
export function heading(title, lead, ...more) {
  return h('div.heading', null, h('h1', { tabindex: '-1' }, title), more, lead && h('p.lead', null, lead));
}

/** @param {number} [rows] */
export function loading(rows = 3) {
  return h('div.loading', { role: 'status' }, h('span.unseen', null, texts.bits.loading), Array.from({ length: rows }, () => h('div.bone', { 'aria-hidden': 'true' })));
}

/** @param {string} title @param {string | null} text @param {...any} more */
export function empty(title, text, ...more) {
  return h('div.empty', null, h('p.empty-title', null, title), text && h('p', null, text), more);
}

/**
 * What a page shows when it could not be loaded. It tries again by itself once the network is back.
 * @param {any} error
 * @param {() => void} retry
 */
export function failure(error, retry) {
  const shown = h(
    'div.failure',
    { role: 'alert' },
    h('h2', null, texts.errors.title),
    h('p', null, error.status === 403 ? texts.errors.forbidden : error.message),
    error.requestId && h('p.quiet', null, texts.bits.requestId(error.requestId)),
    error.status === 403 ? null : h('button', { type: 'button', onclick: retry, 'data-key': 'retry' }, texts.bits.retry),
  );
  if (error.code === 'offline') window.addEventListener('online', () => shown.isConnected && retry(), { once: true });
  return shown;
}

/** @param {'good' | 'bad' | 'warn' | 'quiet'} tone @param {...any} children */
export function note(tone, ...children) {
  return h(`div.note.${tone}`, tone === 'bad' ? { role: 'alert' } : null, children);
}

/** Says something at the edge of the page. @param {string} text @param {'good' | 'bad'} [tone] */
export function tell(text, tone = 'good') {
  const to = /** @type {Element} */ (document.getElementById('notices'));
  const each = h(`div.toast.${tone}`, null, text, h('button.small', { type: 'button', 'aria-label': texts.bits.close, onclick: () => each.remove() }, '×'));
  to.append(each);
  setTimeout(() => each.remove(), 8_000);
}

/** Counts the loads of a part, so that a slow one does not show up over a later one. @type {WeakMap<Element, number>} */
const loads = new WeakMap();

/**
 * A part of a page that is loaded, may fail, and can be loaded again. A child that is a promise is
 * shown when it comes, and may fail by itself.
 * @param {Element} view carries `data-state`
 * @param {Element} to
 * @param {() => Promise<any>} load a child, or a list of them
 */
export async function fillFrom(view, to, load) {
  const own = (loads.get(to) ?? 0) + 1;
  loads.set(to, own);
  view.setAttribute('data-state', 'loading');
  replace(to, loading());
  const again = () => fillFrom(view, to, load);
  let state = 'ready';
  const put = async (/** @type {Element} */ place, /** @type {Promise<Element>} */ part) => {
    try {
      place.replaceWith(await part);
    } catch (error) {
      place.replaceWith(failure(error, again));
      state = 'error';
    }
  };
  try {
    const children = [await load()].flat();
    if (loads.get(to) !== own) return;
    const shown = children.map((child) => (child instanceof Promise ? loading(1) : child));
    replace(to, shown);
    await Promise.all(children.map((child, at) => child instanceof Promise && put(shown[at], child)));
    if (loads.get(to) !== own) return;
  } catch (error) {
    if (loads.get(to) !== own) return;
    replace(to, failure(error, again));
    state = 'error';
  }
  view.setAttribute('data-state', state);
}

/**
 * Shows another answer in a part that `fillFrom` filled, or could not fill.
 * @param {Element} view
 * @param {Element} to
 * @param {boolean} isOther than the one that it shows
 * @param {() => any[]} draw
 */
export function refill(view, to, isOther, draw) {
  const state = view.getAttribute('data-state');
  if (!to.isConnected || state === 'loading' || (state === 'ready' && !isOther)) return;
  replace(to, draw());
  view.setAttribute('data-state', 'ready');
}

/** Says whether the page is told of changes, or asks for them. */
class LiveState extends HTMLElement {
  /** @type {import('../lib/live.js').Live} */
  live = /** @type {any} */ (null);

  connectedCallback() {
    // Screen readers say a change of it when they have nothing else to say.
    this.setAttribute('role', 'status');
    this.unlisten = this.live.listen(() => this.show());
    this.show();
  }

  disconnectedCallback() {
    this.unlisten?.();
  }

  show() {
    const { state } = this.live;
    this.setAttribute('data-state', state);
    const words = texts.live[state];
    replace(this, words === undefined ? null : h(`span.badge.${state === 'live' ? 'good' : 'quiet'}`, { title: words.hint }, words.label));
  }
}
customElements.define('live-state', LiveState);

/** @param {import('../lib/live.js').Live} live */
export function liveState(live) {
  return Object.assign(h('live-state'), { live });
}
