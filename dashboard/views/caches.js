// The caches of the process that answered, for operators: hit rates and sizes.

/** @import * as Api from '../types/api.js' */

import { h, replace } from '../lib/dom.js';
import { number, share } from '../lib/format.js';
import { fillFrom, heading } from '../parts/bits.js';
import texts from '../texts.js';

const READ_EVERY_MS = 5_000;

class CachesView extends HTMLElement {
  /** @type {import('../app.js').Context} */
  context = /** @type {any} */ (null);

  connectedCallback() {
    const to = (this.body = h('div.parts'));
    replace(this, heading(texts.pages.caches, texts.caches.lead), this.body);
    fillFrom(this, to, async () => this.parts(await this.context.api.get('/operator/cache')));
    this.timer = setInterval(() => document.hidden || this.refresh(), READ_EVERY_MS);
  }

  disconnectedCallback() {
    clearInterval(this.timer);
  }

  async refresh() {
    const view = await this.context.api.get('/operator/cache').catch(() => null);
    if (view !== null && this.isConnected && this.getAttribute('data-state') === 'ready') replace(/** @type {Element} */ (this.body), this.parts(view));
  }

  /** @param {Api.CachesView} view */
  parts({ instance, caches }) {
    const words = texts.caches;
    const columns = [words.columns.name, words.columns.rate, words.columns.hits, words.columns.misses, words.columns.entries];
    const cells = (/** @type {Api.CacheView} */ one) => [
      words.names[one.name] ?? one.name,
      share(one.hit_rate),
      number(one.hits),
      number(one.misses),
      `${number(one.entries)} / ${number(one.entries_max)}`,
    ];
    return [
      h('p', null, words.instance, ' ', h('code', null, instance)),
      h(
        'table',
        { 'aria-label': texts.pages.caches },
        h('thead', null, h('tr', null, columns.map((column) => h('th', { scope: 'col' }, column)))),
        h('tbody', null, caches.map((one) => h('tr', { 'data-id': one.name }, cells(one).map((cell, at) => h('td', { 'data-label': columns[at] }, h('div', null, cell)))))),
      ),
    ];
  }
}
customElements.define('caches-view', CachesView);

/** @param {import('../app.js').Context} context */
export function view(context) {
  return Object.assign(h('caches-view'), { context });
}
