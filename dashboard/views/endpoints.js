// Where webhooks come in, where they go out, and what was refused at the door.

/** @import * as Api from '../types/api.js' */

import { h, replace } from '../lib/dom.js';
import { bytes, number, TONES } from '../lib/format.js';
import { askFirst, askForm, showOnce } from '../parts/ask.js';
import { badge, copyable, empty, fillFrom, heading, note, tell, time } from '../parts/bits.js';
import { filterBar, PERIOD } from '../parts/filters.js';
import { pagedList } from '../parts/paged.js';
import texts from '../texts.js';

const SOURCES = ['vapi', 'twilio'];
const READ_EVERY_MS = 5_000;

class EndpointsView extends HTMLElement {
  /** @type {import('../app.js').Context} */
  context = /** @type {any} */ (null);
  query = new URLSearchParams();

  connectedCallback() {
    const words = texts.endpoints;
    const mayManage = this.context.session.can('manage');
    this.in = h('div.cards');
    this.out = h('div.cards');
    this.bar = h('div');
    this.rejections = pagedList({
      api: this.context.api,
      path: '/api/rejections',
      lists: ['rejections'],
      label: words.refused,
      query: Object.fromEntries(this.query),
      none: () => empty(this.query.size > 0 ? texts.lists.noMatch : words.noneRefused, null),
      columns: [
        { label: words.columns.when, cell: (/** @type {Api.RejectionView} */ row) => time(row.at) },
        { label: words.columns.source, cell: (/** @type {Api.RejectionView} */ row) => texts.providers[row.source] ?? row.source },
        { label: words.columns.why, cell: (/** @type {Api.RejectionView} */ row) => [h('strong', null, words.causes[row.cause] ?? row.cause), ' ', h('span.hint', null, words.hints[row.cause] ?? null)] },
        { label: words.columns.ids, cell: (/** @type {Api.RejectionView} */ row) => row.ids.map((/** @type {Api.IdView} */ each) => h('div', null, `${each.kind}: `, h('code', null, each.value))) },
        { label: words.columns.size, cell: (/** @type {Api.RejectionView} */ row) => bytes(row.bytes) },
        { label: words.columns.head, cell: (/** @type {Api.RejectionView} */ row) => (row.head ? h('details', null, h('summary', null, words.show), h('pre', { tabindex: '0' }, h('code', null, row.head))) : row.claimed ? h('span.hint', null, words.claimed) : null) },
      ],
    });
    replace(
      this,
      heading(texts.pages.endpoints, words.lead),
      h('div.heading', null, h('h2', null, words.incoming), mayManage && h('button', { type: 'button', 'data-key': 'endpoint-add', onclick: () => this.add() }, words.add)),
      this.in,
      h('div.heading', null, h('h2', null, words.outgoing), mayManage && h('button', { type: 'button', 'data-key': 'destination-add', onclick: () => this.addDestination() }, words.addDestination)),
      this.out,
      h('h2', null, words.refused),
      this.bar,
      this.rejections,
    );
    this.filters();
    this.loadIn();
    this.loadOut();
    this.unwatch = this.context.api.live.watch([], () => this.showReceived(), READ_EVERY_MS);
  }

  disconnectedCallback() {
    this.unwatch?.();
  }

  /** The filters are of the refused requests: they are what there are many of. */
  filters() {
    const words = texts.endpoints;
    const causes = { name: 'cause', label: words.columns.why, options: /** @type {[string, string][]} */ (Object.entries(words.causes)) };
    replace(/** @type {Element} */ (this.bar), filterBar('endpoints', this.query, [causes, ...PERIOD]));
  }

  /** @param {import('../lib/page.js').Place} place */
  placeChanged(place) {
    this.query = place.query;
    this.filters();
    this.rejections?.ask(Object.fromEntries(place.query));
  }

  /** Says at each URL whether something has come in by it: the newest events tell. */
  async showReceived() {
    const words = texts.endpoints;
    const places = [...this.querySelectorAll('[data-received]')];
    for (const source of new Set(places.map((place) => place.getAttribute('data-source')))) {
      const answer = await this.context.api.get('/api/events', { source, limit: 200 }).catch(() => null);
      for (const place of answer === null ? [] : places) {
        if (place.getAttribute('data-source') !== source) continue;
        const id = place.getAttribute('data-received');
        const last = answer.data.find((/** @type {Api.EventView} */ event) => event.endpoint_id === id);
        const text = last ? last.received_at : answer.next_cursor === null ? 'none' : '';
        if (place.getAttribute('data-last') === text) continue;
        place.setAttribute('data-last', text);
        replace(place, last ? h('p', null, words.lastReceived, ' ', time(last.received_at)) : text === 'none' ? note('quiet', words.waiting) : '');
      }
    }
  }

  loadIn() {
    const { api } = this.context;
    const to = /** @type {Element} */ (this.in);
    return fillFrom(to, to, async () => {
      const { data } = await api.get('/api/endpoints', { limit: 200 });
      const all = await Promise.all(data.map((/** @type {any} */ row) => api.get(`/api/endpoints/${row.id}`).catch(() => row)));
      return all.length === 0 ? [empty(texts.endpoints.none, texts.endpoints.noneYet)] : all.map((row) => this.sheet(row));
    }).then(() => this.showReceived());
  }

  /** @param {Api.EndpointDetail} endpoint */
  sheet(endpoint) {
    const words = texts.endpoints;
    const mayManage = this.context.session.can('manage');
    return h(
      'section.sheet',
      { 'data-endpoint': endpoint.id },
      h('header', null, h('h3', null, endpoint.name), badge('quiet', texts.providers[endpoint.source] ?? endpoint.source)),
      endpoint.url ? copyable(endpoint.url, words.url) : [h('code', null, endpoint.path), note('warn', words.noUrl)],
      h('div', { 'data-received': endpoint.id, 'data-source': endpoint.source, 'aria-live': 'polite' }),
      h('details', null, h('summary', null, words.stepsTitle), h('ol', null, (words.steps[endpoint.source] ?? []).map((/** @type {string} */ step) => h('li', null, step)))),
      endpoint.ignored_types.length > 0 && h('p.quiet', null, words.ignored, ' ', endpoint.ignored_types.join(', ')),
      (endpoint.secrets ?? []).length > 0 && [
        h('h4', null, words.secrets),
        h(
          'ul',
          null,
          distinct(endpoint.secrets).map((secret) =>
            h(
              'li',
              null,
              secret.last_four ? words.endsIn(secret.last_four) : words.secretOf,
              ' ',
              secret.not_after ? [words.validUntil, ' ', time(secret.not_after)] : words.valid,
              lastUse(secret),
            ),
          ),
        ),
      ],
      mayManage &&
        h(
          'footer.row',
          null,
          h('button', { type: 'button', 'data-do': 'rename', onclick: () => this.rename(endpoint) }, words.rename),
          endpoint.source === 'vapi' && h('button', { type: 'button', 'data-do': 'rotate', onclick: () => this.rotate(endpoint) }, words.rotate),
          h('button', { type: 'button', 'data-do': 'delete', onclick: () => this.askRemove(endpoint) }, words.delete),
        ),
    );
  }

  add() {
    const words = texts.endpoints;
    askForm({
      title: words.add,
      lead: words.addLead,
      button: words.make,
      fields: [
        { name: 'name', label: words.fields.name, hint: words.hints_.name },
        { name: 'source', label: words.fields.source, options: SOURCES.map((each) => [each, texts.providers[each]]), value: 'vapi' },
      ],
      send: async (values, key) => {
        const made = await this.context.api.post('/api/endpoints', values, { key });
        this.loadIn();
        if (made.secret) showOnce(words.secretTitle, made.secret, made.url && h('p', null, words.url, ': ', copyable(made.url, words.url)));
        else tell(words.made);
      },
    });
  }

  /** @param {Api.EndpointDetail} endpoint */
  rename(endpoint) {
    const words = texts.endpoints;
    askForm({
      title: words.rename,
      button: texts.form.save,
      fields: [
        { name: 'name', label: words.fields.name, value: endpoint.name },
        { name: 'ignored_types', label: words.fields.ignored, value: endpoint.ignored_types.join(', '), optional: true, hint: words.hints_.ignored },
      ],
      send: async ({ name, ignored_types }) => {
        const kinds = ignored_types.split(/[\s,]+/).filter((each) => each !== '');
        await this.context.api.patch(`/api/endpoints/${endpoint.id}`, { name, ignored_types: kinds }, { etag: endpoint.etag });
        this.loadIn();
      },
    });
  }

  /** @param {Api.EndpointDetail} endpoint */
  rotate(endpoint) {
    const words = texts.endpoints;
    askForm({
      title: words.rotateTitle(endpoint.name),
      lead: words.rotateLead,
      button: words.rotate,
      fields: [{ name: 'hours', label: words.fields.overlap, value: '24', hint: words.hints_.overlap }],
      send: async ({ hours }, key) => {
        const seconds = Math.max(0, Math.round(Number(hours.replace(',', '.')) * 3600)) || 0;
        const made = await this.context.api.post(`/api/endpoints/${endpoint.id}/secrets`, { overlap_seconds: seconds }, { etag: endpoint.etag, key });
        this.loadIn();
        if (made.secret) showOnce(words.secretTitle, made.secret);
      },
    });
  }

  /** @param {Api.EndpointDetail} endpoint */
  askRemove(endpoint) {
    const words = texts.endpoints;
    askFirst({
      title: words.askDelete(endpoint.name),
      lead: [words.deleteLead],
      yes: words.delete,
      act: async () => {
        await this.context.api.delete(`/api/endpoints/${endpoint.id}`, { etag: endpoint.etag });
        this.loadIn();
      },
    });
  }

  loadOut() {
    const to = /** @type {Element} */ (this.out);
    return fillFrom(to, to, async () => {
      const { data } = await this.context.api.get('/api/destinations', { limit: 200 });
      return data.length === 0 ? [empty(texts.endpoints.noDestinations, texts.endpoints.noDestinationsYet)] : data.map((/** @type {any} */ row) => this.destination(row));
    });
  }

  /** @param {Api.DestinationView} row */
  destination(row) {
    const words = texts.endpoints;
    return h(
      'section.sheet',
      { 'data-destination': row.name },
      h('header', null, h('h3', null, row.name), badge(TONES[row.state] ?? 'quiet', texts.states[row.state] ?? row.state, row.state)),
      h('code', null, row.url),
      row.error && note('bad', row.error.message),
      h('dl', null, h('dt', null, words.secret), h('dd', null, row.last_four ? words.endsIn(row.last_four) : '–'), h('dt', null, texts.card.facts.used), h('dd', null, time(row.last_used_at))),
      h('div', { 'data-tested': row.name, 'aria-live': 'polite' }),
      this.context.session.can('manage') &&
        h(
          'footer.row',
          null,
          h('button', { type: 'button', 'data-do': 'test', onclick: (/** @type {any} */ event) => this.test(row, event.currentTarget) }, words.test.button),
          h('button', { type: 'button', 'data-do': 'move', onclick: () => this.move(row) }, words.move),
          h('button', { type: 'button', 'data-do': 'rotate', onclick: () => this.rotateDestination(row) }, words.rotate),
          h('button', { type: 'button', 'data-do': 'delete', onclick: () => this.removeDestination(row) }, words.delete),
        ),
    );
  }

  addDestination() {
    const words = texts.endpoints;
    askForm({
      title: words.addDestination,
      lead: words.destinationLead,
      button: words.make,
      fields: [
        { name: 'name', label: words.fields.destination, hint: words.hints_.destination },
        { name: 'url', label: words.fields.url, type: 'url', hint: words.hints_.url },
      ],
      send: async (values, key) => {
        const made = await this.context.api.post('/api/destinations', values, { key });
        this.loadOut();
        if (made.secret) showOnce(words.secretTitle, made.secret, h('p', null, words.verifyLead));
      },
    });
  }

  /** One signed post that says that it is a test. @param {Api.DestinationView} row @param {HTMLButtonElement} button */
  async test(row, button) {
    const words = texts.endpoints.test;
    const to = /** @type {Element} */ (button.closest('section')?.querySelector('[data-tested]'));
    button.disabled = true;
    replace(to, note('quiet', words.running));
    try {
      const found = /** @type {Api.DestinationTestView} */ (await this.context.api.post(`/api/destinations/${encodeURIComponent(row.name)}/test`));
      const answer = (found.http_status ?? null) === null ? null : words.answer(String(found.http_status));
      const took = number(found.took_ms);
      replace(to, found.is_accepted ? note('good', h('p', null, words.accepted(took), ' ', answer)) : note('bad', h('p', null, texts.causes[found.cause ?? ''] ?? found.cause, ' ', answer), found.detail && h('p', null, h('q', null, found.detail))));
    } catch (error) {
      replace(to, note('bad', /** @type {Error} */ (error).message));
    } finally {
      button.disabled = false;
    }
  }

  /** @param {Api.DestinationView} row */
  move(row) {
    const words = texts.endpoints;
    askForm({
      title: words.move,
      button: texts.form.save,
      fields: [{ name: 'url', label: words.fields.url, type: 'url', value: row.url ?? '', hint: words.hints_.url }],
      send: async ({ url }) => {
        await this.context.api.patch(`/api/destinations/${encodeURIComponent(row.name)}`, { url }, { etag: row.etag });
        this.loadOut();
      },
    });
  }

  /** @param {Api.DestinationView} row */
  rotateDestination(row) {
    const words = texts.endpoints;
    askFirst({
      title: words.rotateTitle(row.name),
      lead: [words.rotateDestinationLead],
      yes: words.rotate,
      act: async () => {
        const made = await this.context.api.post(`/api/destinations/${encodeURIComponent(row.name)}/secrets`, undefined, { etag: row.etag });
        this.loadOut();
        if (made.secret) showOnce(words.secretTitle, made.secret);
      },
    });
  }

  /** @param {Api.DestinationView} row */
  removeDestination(row) {
    const words = texts.endpoints;
    askFirst({
      title: words.askDelete(row.name),
      lead: [words.deleteDestinationLead],
      yes: words.delete,
      act: async () => {
        await this.context.api.delete(`/api/destinations/${encodeURIComponent(row.name)}`, { etag: row.etag });
        this.loadOut();
      },
    });
  }
}
customElements.define('endpoints-view', EndpointsView);

/** When a secret verified a webhook last, where the API says it. @param {any} secret */
function lastUse({ last_used_at: at }) {
  if (at === undefined) return null;
  return at === null ? `, ${texts.endpoints.unused}` : [`, ${texts.endpoints.used} `, time(at)];
}

/** One secret may be stored once for each way in which it is accepted. @param {Api.SecretView[]} secrets @returns {Api.SecretView[]} */
function distinct(secrets) {
  return [...new Map(secrets.map((secret) => [`${secret.last_four} ${secret.not_after}`, secret])).values()];
}

/** @param {import('../app.js').Context} context @param {import('../lib/page.js').Place} place */
export function view(context, place) {
  return Object.assign(h('endpoints-view'), { context, query: place.query });
}
