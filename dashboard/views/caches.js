// The queue and the caches of the process that answered, for operators: depth and hit rates over the
// last hour or day, and what each cache holds now.

/** @import * as Api from '../types/api.js' */

import { h } from '../lib/dom.js';
import { number, share } from '../lib/format.js';
import { samplesOf } from '../lib/samples.js';
import { note, time } from '../parts/bits.js';
import { chart } from '../parts/chart.js';
import { SpanView } from '../parts/spans.js';
import texts from '../texts.js';

class CachesView extends SpanView {
  page = 'caches';
  usual = 'hour';
  everyMs = 10_000;
  lead = texts.caches.lead;

  /** @param {string} over */
  async parts(over) {
    const { api } = this.context;
    const [samples, now] = await Promise.all([
      /** @type {Promise<Api.SamplesView>} */ (api.get('/operator/statistics', { over })),
      /** @type {Promise<Api.CachesView>} */ (api.get('/operator/cache')),
    ]);
    return [overTime(samples), table(now)];
  }
}
customElements.define('caches-view', CachesView);

/** @param {Api.SamplesView} samples */
function overTime({ instance, since, has_queue: hasQueue, buckets }) {
  const words = texts.caches;
  const { depth, newest, caches } = samplesOf(buckets);
  const ofQueue = () => chart({ title: words.depth, bars: depth, kinds: [{ kind: 'all', label: words.depth, tone: 'plain' }], sum: newest === null ? '–' : texts.overview.nowIs(number(newest)) });
  const ofCache = (/** @type {typeof caches[number]} */ { name, bars, rate }) =>
    chart({
      title: words.rate(words.names[name] ?? name),
      bars,
      kinds: [{ kind: 'rate', label: words.columns.rate, tone: 'good' }],
      more: [
        { kind: 'hits', label: words.columns.hits },
        { kind: 'misses', label: words.columns.misses },
      ],
      show: share,
      sum: share(rate),
      said: texts.overview.wholeTime(share(rate)),
    });
  return [
    h('h2', null, words.overTime),
    h('p', null, words.instance, ' ', h('code', null, instance), '. ', words.since, ' ', time(since), '.'),
    hasQueue ? null : note('quiet', words.noQueue),
    h('div.cards', null, hasQueue && ofQueue(), caches.map(ofCache)),
  ];
}

/** @param {Api.CachesView} view */
function table({ instance, caches }) {
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
    h('h2', null, words.sinceStart),
    h('p', null, words.instance, ' ', h('code', null, instance)),
    h(
      'table',
      { 'aria-label': words.sinceStart },
      h('thead', null, h('tr', null, columns.map((column) => h('th', { scope: 'col' }, column)))),
      h('tbody', null, caches.map((one) => h('tr', { 'data-id': one.name }, cells(one).map((cell, at) => h('td', { 'data-label': columns[at] }, h('div', null, cell)))))),
    ),
  ];
}

/** @param {import('../app.js').Context} context @param {import('../lib/page.js').Place} place */
export function view(context, place) {
  return Object.assign(h('caches-view'), { context, query: place.query });
}
