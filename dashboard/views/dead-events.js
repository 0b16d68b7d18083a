// Dead events: verified events that could not be planned, and their way back. For operators. No
// content of a message is here: the API shows none.

/** @import * as Api from '../types/api.js' */

import { h, replace } from '../lib/dom.js';
import { go, href } from '../lib/page.js';
import { askFirst } from '../parts/ask.js';
import { copyable, empty, fillFrom, heading, note, tell, time } from '../parts/bits.js';
import { filterBar } from '../parts/filters.js';
import { pagedList } from '../parts/paged.js';
import texts from '../texts.js';

class DeadEventsView extends HTMLElement {
  /** @type {import('../app.js').Context} */
  context = /** @type {any} */ (null);
  query = new URLSearchParams();

  connectedCallback() {
    const words = texts.deadEvents.columns;
    this.list = pagedList({
      api: this.context.api,
      path: '/operator/dead-events',
      label: texts.pages['dead-events'],
      query: Object.fromEntries(this.query),
      none: () => (this.query.size > 0 ? empty(texts.lists.noMatch, null) : empty(texts.deadEvents.none, null)),
      columns: [
        { label: words.dead, cell: (/** @type {Api.DeadEventView} */ row) => time(row.dead_at) },
        { label: words.type, cell: (/** @type {Api.DeadEventView} */ row) => h('a', { href: href('dead-events', row.id) }, row.type ?? texts.deadEvents.unreadable) },
        { label: words.organisation, cell: (/** @type {Api.DeadEventView} */ row) => row.org_id && h('code', null, row.org_id) },
        { label: words.reason, cell: (/** @type {Api.DeadEventView} */ row) => row.reason },
        { label: words.do, cell: (/** @type {Api.DeadEventView} */ row) => replayButton(this.context, row, () => this.list?.load()) },
      ],
    });
    this.bar = h('div');
    replace(this, heading(texts.pages['dead-events'], texts.deadEvents.lead), this.bar, this.list);
    this.filters();
  }

  filters() {
    replace(/** @type {Element} */ (this.bar), filterBar('dead-events', this.query, [{ name: 'org_id', label: texts.scopes.org }]));
  }

  /** @param {import('../lib/page.js').Place} place */
  placeChanged(place) {
    this.query = place.query;
    this.filters();
    this.list?.ask(Object.fromEntries(place.query));
  }
}
customElements.define('dead-events-view', DeadEventsView);

class DeadEventView extends HTMLElement {
  /** @type {import('../app.js').Context} */
  context = /** @type {any} */ (null);
  event = '';

  connectedCallback() {
    fillFrom(this, this, async () => {
      const words = texts.deadEvents;
      const event = /** @type {Api.DeadEventView} */ (await this.context.api.get(`/operator/dead-events/${encodeURIComponent(this.event)}`));
      const fact = (/** @type {string} */ name, /** @type {any} */ value) => [h('dt', null, name), h('dd', null, value)];
      return [
        heading(event.type ?? words.unreadable, null, replayButton(this.context, event, () => go(href('dead-events')))),
        note('bad', h('p', null, event.reason)),
        h(
          'section.sheet',
          null,
          h(
            'dl',
            null,
            fact(words.columns.dead, time(event.dead_at)),
            fact(words.received, time(event.received_at)),
            event.source && fact(words.source, texts.providers[event.source] ?? event.source),
            fact(words.columns.organisation, event.org_id ? h('a', { href: href('dead-events', null, { org_id: event.org_id }) }, event.org_id) : words.unowned),
            fact(words.id, copyable(event.id, words.id)),
          ),
        ),
        note('quiet', event.org_id ? words.noContent : words.notReplayable),
      ];
    });
  }
}
customElements.define('dead-event-view', DeadEventView);

/** @param {import('../app.js').Context} context @param {Api.DeadEventView} event @param {() => void} done */
function replayButton({ api }, event, done) {
  const words = texts.deadEvents;
  if (!event.org_id) return null;
  const ask = () =>
    askFirst({
      title: words.ask,
      lead: [words.askLead],
      yes: words.replay,
      act: async () => {
        await api.post(`/operator/dead-events/${encodeURIComponent(event.id)}/replay`);
        tell(words.done);
        done();
      },
    });
  return h('button.small', { type: 'button', 'data-do': 'replay', 'data-key': `replay-${event.id}`, onclick: ask }, words.replay);
}

/** @param {import('../app.js').Context} context @param {import('../lib/page.js').Place} place */
export function view(context, place) {
  if (place.id !== null) return Object.assign(h('dead-event-view'), { context, event: place.id });
  return Object.assign(h('dead-events-view'), { context, query: place.query });
}
