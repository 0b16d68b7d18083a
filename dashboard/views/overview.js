// The overview: what needs attention first, then what went through.

import { h, replace } from '../lib/dom.js';
import { number } from '../lib/format.js';
import { attention, bars, duration, figures, SPANS } from '../lib/overview.js';
import { word } from '../lib/outcomes.js';
import { href } from '../lib/page.js';
import { fillFrom, heading, note } from '../parts/bits.js';
import { chart } from '../parts/chart.js';
import texts from '../texts.js';

/** Pages of a list that are read for a chart: 1,000 rows. */
const PAGES_MAX = 5;
const PAGE = 200;
const READ_EVERY_MS = 30_000;

/**
 * The rows of a list since a time, as far as the pages go.
 * @param {import('../lib/api.js').Api} api
 * @param {string} path
 * @param {(row: any) => string} timeOf
 * @param {number} since
 * @returns {Promise<{rows: any[], isWhole: boolean}>}
 */
async function rowsSince(api, path, timeOf, since) {
  const rows = [];
  let cursor = null;
  for (let page = 0; page < PAGES_MAX; page += 1) {
    const answer = await api.get(path, { limit: PAGE, cursor });
    rows.push(...answer.data);
    cursor = answer.next_cursor;
    const last = answer.data.at(-1);
    if (cursor === null || last === undefined || new Date(timeOf(last)).getTime() < since) return { rows, isWhole: true };
  }
  return { rows, isWhole: false };
}

class OverviewView extends HTMLElement {
  /** @type {import('../app.js').Context} */
  context = /** @type {any} */ (null);
  query = new URLSearchParams();

  connectedCallback() {
    this.load();
    this.timer = setInterval(() => this.refresh(), READ_EVERY_MS);
  }

  disconnectedCallback() {
    clearInterval(this.timer);
  }

  /** Reads again what is looked at. Opened numbers stay as they are. */
  async refresh() {
    if (document.hidden || this.getAttribute('data-state') !== 'ready' || this.querySelector('details[open]')) return;
    const { search } = location;
    const parts = await this.parts().catch(() => null);
    if (parts !== null && this.isConnected && search === location.search) replace(this, parts);
  }

  /** @param {import('../lib/page.js').Place} place */
  placeChanged(place) {
    this.query = place.query;
    this.load();
  }

  load() {
    return fillFrom(this, this, () => this.parts());
  }

  async parts() {
    const words = texts.overview;
    const span = SPANS[this.query.get('span') ?? 'day'] ?? SPANS.day;
    const { api } = this.context;
    const now = Date.now();
    const since = now - span.ms;
    const received = (/** @type {any} */ row) => row.received_at;
    const planned = (/** @type {any} */ row) => row.created_at;
    const state = async (/** @type {string} */ each) => {
      const { data, next_cursor } = await api.get('/api/actions', { state: each, limit: PAGE });
      return [each, { count: data.length, hasMore: next_cursor !== null }];
    };
    const [{ integrations }, events, actions, rejections, { pauses }, ...counted] = await Promise.all([
      api.get('/api/integrations/status'),
      rowsSince(api, '/api/events', received, since),
      rowsSince(api, '/api/actions', planned, since),
      api.get('/api/rejections', { limit: PAGE }),
      api.get('/api/pauses'),
      ...['dead', 'unknown', 'parked'].map(state),
    ]);
    const refused = rejections.data.filter((/** @type {any} */ row) => new Date(row.at).getTime() >= since).length;
    const found = attention(integrations, Object.fromEntries(counted), refused, pauses);
    const sum = figures(actions.rows, now, span);
    const part = (/** @type {number | null} */ share) => (share === null ? '–' : new Intl.NumberFormat(undefined, { style: 'percent', maximumFractionDigits: 1 }).format(share));
    const kind = (/** @type {any} */ row) => (row.state === 'succeeded' ? 'good' : row.state === 'dead' ? 'bad' : 'other');
    return [
      heading(
        texts.pages.overview,
        null,
        h('div.row', { role: 'group', 'aria-label': words.span }, Object.keys(SPANS).map((key) => h('a.button', { href: href('overview', null, { span: key }), 'aria-current': key === span.key ? 'true' : null }, words.spans[key]))),
      ),
      h('section.sheet', null, h('h2', null, words.attention), found.length === 0 ? note('good', words.allGood) : h('ul', null, found.map(line))),
      h(
        'div.tiles',
        null,
        tile(words.tiles.events, number(events.rows.filter((row) => new Date(received(row)).getTime() >= since).length) + (events.isWhole ? '' : '+')),
        tile(words.tiles.actions, number(sum.planned) + (actions.isWhole ? '' : '+')),
        tile(words.tiles.success, part(sum.success)),
        tile(words.tiles.retried, number(sum.retried)),
        tile(words.tiles.half, duration(sum.half)),
        tile(words.tiles.most, duration(sum.most)),
      ),
      events.isWhole && actions.isWhole ? null : note('quiet', words.notWhole),
      h(
        'div.cards',
        null,
        chart({ title: words.events, bars: bars(events.rows, received, now, span), kinds: [{ kind: 'all', label: words.events, tone: 'plain' }] }),
        chart({
          title: words.actions,
          bars: bars(actions.rows, planned, now, span, kind),
          kinds: [
            { kind: 'good', label: word('succeeded'), tone: 'good' },
            { kind: 'other', label: words.open, tone: 'warn' },
            { kind: 'bad', label: word('dead'), tone: 'bad' },
          ],
        }),
      ),
    ];
  }
}
customElements.define('overview-view', OverviewView);

/** One line of what needs attention. @param {ReturnType<typeof attention>[number]} found */
function line({ kind, provider, state, count, hasMore, scope, reason }) {
  const words = texts.overview.lines;
  switch (kind) {
    case 'paused':
      return h('li', null, words.paused(texts.pauses.held[scope ?? ''] ?? scope, provider ? (texts.providers[provider] ?? provider) : null), ' ', h('q', null, reason));
    case 'integration':
      return h('li', null, h('a', { href: href('integrations') }, words.integration(texts.providers[provider ?? ''] ?? provider, texts.states[state ?? ''] ?? state)));
    case 'actions':
      return h('li', null, h('a', { href: href('actions', null, { state }) }, words[state ?? ''](`${number(count ?? 0)}${hasMore ? '+' : ''}`)));
    default:
      return h('li', null, h('a', { href: href('endpoints') }, words.refused(number(count ?? 0))));
  }
}

/** @param {string} label @param {string} value */
function tile(label, value) {
  return h('div.tile', null, h('span.quiet', null, label), h('strong', null, value));
}

/** @param {import('../app.js').Context} context @param {import('../lib/page.js').Place} place */
export function view(context, place) {
  return Object.assign(h('overview-view'), { context, query: place.query });
}
