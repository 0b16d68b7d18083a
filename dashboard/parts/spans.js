// A page of figures over the last hour or day. Its heading and the links to the two spans stay while
// the figures are read anew, so that the keyboard's focus stays on them.

import { h, replace } from '../lib/dom.js';
import { SPANS } from '../lib/overview.js';
import { href } from '../lib/page.js';
import { fillFrom, heading } from './bits.js';
import texts from '../texts.js';

/** @typedef {typeof SPANS[number]} Span */

export class SpanView extends HTMLElement {
  /** @type {import('../app.js').Context} */
  context = /** @type {any} */ (null);
  query = new URLSearchParams();
  page = '';
  /** Where the address names no span. @type {Span} */
  usual = 'day';
  everyMs = 0;
  /** @type {string | null} */
  lead = null;
  body = h('div.parts');

  /** What is shown of a span; a promise among it comes later. @param {Span} _over @returns {Promise<any[]>} */
  async parts(_over) {
    return [];
  }

  connectedCallback() {
    const link = (/** @type {Span} */ span) => h('a.button', { href: href(this.page, null, { span }), 'data-key': `span-${span}` }, texts.overview.spans[span]);
    this.spans = h('div.row', { role: 'group', 'aria-label': texts.overview.span }, SPANS.map(link));
    replace(this, heading(texts.pages[this.page], this.lead, this.spans), this.body);
    this.load();
    this.unwatch = this.context.api.live.watch([], () => this.refresh(), this.everyMs);
  }

  disconnectedCallback() {
    this.unwatch?.();
  }

  /** @param {import('../lib/page.js').Place} place */
  placeChanged(place) {
    this.query = place.query;
    this.load();
  }

  over() {
    return SPANS.find((span) => span === this.query.get('span')) ?? this.usual;
  }

  load() {
    const over = this.over();
    for (const link of this.spans.children) {
      if (link.getAttribute('data-key') === `span-${over}`) link.setAttribute('aria-current', 'true');
      else link.removeAttribute('aria-current');
    }
    return fillFrom(this, this.body, () => this.parts(over));
  }

  /** Reads again what is looked at. Opened numbers stay as they are. */
  async refresh() {
    if (this.getAttribute('data-state') !== 'ready' || this.querySelector('details[open]')) return;
    const over = this.over();
    const parts = await this.parts(over).then((all) => Promise.all(all)).catch(() => null);
    if (parts !== null && this.isConnected && this.getAttribute('data-state') === 'ready' && over === this.over()) replace(this.body, parts);
  }
}
