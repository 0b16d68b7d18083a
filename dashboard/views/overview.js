// The overview: what needs attention first, then what went through.

/** @import * as Api from '../types/api.js' */

import { h, painted } from '../lib/dom.js';
import { number, share } from '../lib/format.js';
import { attention, barsOf, countSince, duration, success } from '../lib/overview.js';
import { word } from '../lib/outcomes.js';
import { href } from '../lib/page.js';
import { note, time } from '../parts/bits.js';
import { chart } from '../parts/chart.js';
import { SpanView } from '../parts/spans.js';
import texts from '../texts.js';

/** The first reads of this page. The document names them, so that they begin beside the scripts. */
export const READS = ['/api/statistics?over=day', '/api/integrations/status', '/api/pauses', '/api/rejections?limit=200', '/api/actions?state=dead&limit=200', '/api/actions?state=unknown&limit=200', '/api/actions?state=parked&limit=200'];

/** Actions of a state, and refused requests, that are counted for their lines. */
const COUNTED_MAX = 200;

class OverviewView extends SpanView {
  page = 'overview';
  everyMs = 30_000;

  /** @param {string} over */
  async parts(over) {
    const words = texts.overview;
    /** @type {Promise<Api.StatisticsView>} */
    const reading = this.context.api.get('/api/statistics', { over });
    // Asked for at once, and shown when it is there: the figures do not wait for it.
    const found = this.attention(reading);
    // Where the figures fail, this fails with them, and nobody asks for it.
    found.catch(() => {});
    const figures = await reading;
    const { total, backlog, counted_since } = figures;
    return [
      found,
      h(
        'div.tiles',
        null,
        tile('events', number(total.events)),
        tile('actions', number(total.actions)),
        tile('success', share(success(total))),
        tile('retries', number(total.retries)),
        tile('half', duration(total.latency_ms?.p50 ?? null)),
        tile('most', duration(total.latency_ms?.p95 ?? null)),
        tile('waiting', number(waitingOf(backlog)) + (backlog.is_whole ? '' : '+'), backlog.oldest_at && h('span.quiet', null, words.oldest, ' ', time(backlog.oldest_at))),
      ),
      counted_since && note('quiet', h('p', null, words.notWhole, ' ', time(counted_since))),
      // Seen behind the figures, which do not wait until they are drawn.
      painted().then(() => this.charts(figures)),
      h('p.quiet', null, words.notHere),
    ];
  }

  /** @param {Api.StatisticsView} figures */
  charts({ buckets, total, backlog }) {
    const words = texts.overview;
    const bars = barsOf(buckets);
    const most = duration(total.latency_ms?.p95 ?? null);
    return h(
      'div.cards',
      null,
      chart({ title: words.events, bars: bars.events, kinds: [{ kind: 'all', label: words.events, tone: 'plain' }] }),
      chart({
        title: words.actions,
        bars: bars.actions,
        kinds: [
          { kind: 'good', label: word('succeeded'), tone: 'good' },
          { kind: 'other', label: words.open, tone: 'warn' },
          { kind: 'bad', label: word('dead'), tone: 'bad' },
        ],
      }),
      chart({
        title: words.times,
        bars: bars.times,
        // The two parts of a bar are one time on top of the other; people read the whole.
        kinds: [
          { kind: 'half', label: words.tiles.half, tone: 'good' },
          { kind: 'rest', label: words.tiles.most, tone: 'plain', isWhole: true },
        ],
        show: duration,
        sum: most,
        said: words.wholeTime(most),
      }),
      chart({ title: words.tiles.waiting, bars: bars.backlog, kinds: [{ kind: 'all', label: words.tiles.waiting, tone: 'warn' }], sum: words.nowIs(number(waitingOf(backlog))) }),
      chart({ title: words.tiles.retries, bars: bars.retries, kinds: [{ kind: 'all', label: words.tiles.retries, tone: 'warn' }] }),
    );
  }

  /** What needs attention first. @param {Promise<Api.StatisticsView>} reading */
  async attention(reading) {
    const words = texts.overview;
    const { api } = this.context;
    const state = async (/** @type {string} */ each) => {
      const { data, next_cursor } = await api.get('/api/actions', { state: each, limit: COUNTED_MAX });
      return [each, { count: data.length, hasMore: next_cursor !== null }];
    };
    const [{ total }, { integrations }, { pauses }, rejections, ...counted] = await Promise.all([
      reading,
      api.get('/api/integrations/status'),
      api.get('/api/pauses'),
      // Also those before the span: a question that waits for an answer takes twice the time.
      api.get('/api/rejections', { limit: COUNTED_MAX }),
      ...['dead', 'unknown', 'parked'].map(state),
    ]);
    const found = attention(integrations, Object.fromEntries(counted), countSince(rejections.data, total.from), pauses);
    return h('section.sheet', null, h('h2', null, words.attention), found.length === 0 ? note('good', words.allGood) : h('ul', null, found.map(line)));
  }
}
customElements.define('overview-view', OverviewView);

/** @param {Api.StatisticsView['backlog']} backlog */
function waitingOf({ pending, waiting, unknown }) {
  return pending + waiting + unknown;
}

/** One line of what needs attention. @param {ReturnType<typeof attention>[number]} found */
function line({ kind, provider, state, count, hasMore, scope, reason }) {
  const words = texts.overview.lines;
  switch (kind) {
    case 'paused':
      return h('li', null, words.paused(texts.pauses.held[scope ?? ''] ?? scope, provider ? (texts.providers[provider] ?? provider) : null), ' ', h('q', null, reason));
    case 'integration':
      return h('li', null, h('a', { href: href('integrations') }, words.integration(texts.providers[provider ?? ''] ?? provider, texts.states[state ?? ''] ?? state)));
    case 'due':
      return h('li', null, h('a', { href: href('integrations') }, words.due(texts.providers[provider ?? ''] ?? provider)));
    case 'actions':
      return h('li', null, h('a', { href: href('actions', null, { state }) }, words[state ?? ''](`${number(count ?? 0)}${hasMore ? '+' : ''}`)));
    default:
      return h('li', null, h('a', { href: href('endpoints') }, words.refused(number(count ?? 0))));
  }
}

/** @param {string} name @param {string} value @param {any} [more] */
function tile(name, value, more = null) {
  return h('div.tile', { 'data-tile': name }, h('span.quiet', null, texts.overview.tiles[name]), h('strong', null, value), more);
}

/** @param {import('../app.js').Context} context @param {import('../lib/page.js').Place} place */
export function view(context, place) {
  return Object.assign(h('overview-view'), { context, query: place.query });
}
