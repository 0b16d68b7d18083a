// The depth of the queue and the hit rates of caches over a time. Pure.

/** @import * as Api from '../types/api.js' */
/** @import { Bar } from './overview.js' */

import { rateOf } from './overview.js';

/**
 * Bars of the charts, from the buckets of the API, the oldest first.
 * @param {Api.SampleBucketView[]} buckets
 * @returns {{depth: Bar[], deepest: number | null, newest: number | null, caches: {name: string, bars: Bar[], rate: number | null}[]}}
 *   `deepest` and `newest`: `null` without a sample; `rate`: of the whole time
 */
export function samplesOf(buckets) {
  const depths = buckets.map(({ queue_events: events }) => events ?? null);
  const known = depths.filter((depth) => depth !== null);
  const names = [...new Set(buckets.flatMap(({ caches }) => caches.map(({ name }) => name)))];
  return {
    depth: buckets.map(({ from }, at) => ({ from: new Date(from).getTime(), counts: { all: depths[at] }, total: depths[at] ?? 0 })),
    deepest: known.length === 0 ? null : Math.max(...known),
    newest: depths.at(-1) ?? null,
    caches: names.map((name) => {
      const uses = buckets.map(({ from, caches }) => {
        const { hits, misses } = caches.find((cache) => cache.name === name) ?? { hits: 0, misses: 0 };
        const rate = rateOf(hits, misses);
        return { from: new Date(from).getTime(), counts: { rate, hits, misses }, total: rate ?? 0 };
      });
      const sum = (/** @type {'hits' | 'misses'} */ what) => uses.reduce((all, { counts }) => all + counts[what], 0);
      return { name, bars: uses, rate: rateOf(sum('hits'), sum('misses')) };
    }),
  };
}
