// The overview: what needs attention first, then what went through.

/** @import * as Api from '../types/api.js' */

import { h } from '../lib/dom.js';
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
    const { api } = this.context;
    const state = async (/** @type {string} */ each) => {
      const { data, next_cursor } = await api.get('/api/actions', { state: each, limit: COUNTED_MAX });
      return [each, { count: data.length, hasMore: next_cursor !== null }];
    };
    const [{ integrations }, { buckets, total, backlog, counted_since }, rejections, { pauses }, ...counted] = await Promise.all([
      api.get('/api/integrations/status'),
      /** @type {Promise<Api.StatisticsView>} */ (api.get('/api/statistics', { over })),
      // All at once, also those before the span: a question that waits for an answer takes twice the time.
      api.get('/api/rejections', { limit: COUNTED_MAX }),
      api.get('/api/pauses'),
      ...['dead', 'unknown', 'parked'].map(state),
    ]);
    const found = attention(integrations, Object.fromEntries(counted), countSince(rejections.data, total.from), pauses);
    const bars = barsOf(buckets);
    const [half, most] = [total.latency_ms?.p50 ?? null, total.latency_ms?.p95 ?? null];
    const waiting = backlog.pending + backlog.waiting + backlog.unknown;
    return [
      h('section.sheet', null, h('h2', null, words.attention), found.length === 0 ? note('good', words.allGood) : h('ul', null, found.map(line))),
      h(
        'div.tiles',
        null,
        tile('events', number(total.events)),
        tile('actions', number(total.actions)),
        tile('success', share(success(total))),
        tile('retries', number(total.retries)),
        tile('half', duration(half)),
        tile('most', duration(most)),
        tile('waiting', number(waiting) + (backlog.is_whole ? '' : '+'), backlog.oldest_at && h('span.quiet', null, words.oldest, ' ', time(backlog.oldest_at))),
      ),
      counted_since && note('quiet', h('p', null, words.notWhole, ' ', time(counted_since))),
      h(
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
          sum: duration(most),
          said: words.wholeTime(duration(most)),
        }),
        chart({ title: words.tiles.waiting, bars: bars.backlog, kinds: [{ kind: 'all', label: words.tiles.waiting, tone: 'warn' }], sum: words.nowIs(number(waiting)) }),
        chart({ title: words.tiles.retries, bars: bars.retries, kinds: [{ kind: 'all', label: words.tiles.retries, tone: 'warn' }] }),
      ),
      h('p.quiet', null, words.notHere),
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
