// Figures of the overview. Pure.

/** @import * as Api from '../types/api.js' */

/** The times that figures are of. */
export const SPANS = ['hour', 'day'];

/**
 * A bar of a chart: its begin, and how much there is of each kind. `null`: nobody knows.
 * @typedef {{from: number, counts: Record<string, number | null>, total: number}} Bar
 */

/**
 * Bars of the charts, from the buckets of the API, the oldest first.
 * @param {Api.FiguresView[]} buckets
 * @returns {{events: Bar[], actions: Bar[], retries: Bar[], times: Bar[], backlog: Bar[]}}
 */
export function barsOf(buckets) {
  /** @type {(counts: (bucket: Api.FiguresView) => Record<string, number | null>) => Bar[]} */
  const bars = (counts) =>
    buckets.map((bucket) => {
      const found = counts(bucket);
      const total = Object.values(found).reduce((/** @type {number} */ sum, count) => sum + (count ?? 0), 0);
      return { from: new Date(bucket.from).getTime(), counts: found, total };
    });
  return {
    events: bars(({ events }) => ({ all: events })),
    actions: bars(({ actions, succeeded, dead }) => ({ good: succeeded, other: Math.max(0, actions - succeeded - dead), bad: dead })),
    retries: bars(({ retries }) => ({ all: retries })),
    // The time of 95 of 100 stands on top of the time of half of them.
    times: bars(({ latency_ms: time }) => ({ half: time?.p50 ?? 0, rest: (time?.p95 ?? 0) - (time?.p50 ?? 0) })),
    backlog: bars(({ backlog }) => ({ all: backlog ?? null })),
  };
}

/** How many rows came since then. @param {{at: string}[]} rows @param {string} from */
export function countSince(rows, from) {
  return rows.filter(({ at }) => Date.parse(at) >= Date.parse(from)).length;
}

/** A part of a whole. `null`: there is no whole. @param {number} part @param {number} rest */
export function rateOf(part, rest) {
  return part + rest === 0 ? null : part / (part + rest);
}

/** The part of the actions that ended which succeeded. @param {Pick<Api.FiguresView, 'succeeded' | 'dead'>} figures */
export function success({ succeeded, dead }) {
  return rateOf(succeeded, dead);
}

/**
 * What a person has to look at, the most urgent first.
 * @param {(Pick<import('../types/api.d.ts').IntegrationView, 'provider' | 'state'> & {rotation_due?: boolean})[]} integrations
 * @param {Record<string, {count: number, hasMore: boolean}>} states actions by state
 * @param {number} refused requests refused in the span
 * @param {Pick<import('../types/api.d.ts').PauseView, 'scope' | 'provider' | 'reason'>[]} [pauses] by operators
 * @returns {{kind: string, provider?: string | null, state?: string, count?: number, hasMore?: boolean, scope?: string, reason?: string}[]}
 */
export function attention(integrations, states, refused, pauses = []) {
  /** @type {ReturnType<typeof attention>} */
  const found = pauses.map(({ scope, provider, reason }) => ({ kind: 'paused', scope, provider, reason }));
  for (const wanted of ['undecryptable', 'needs_reconnecting', 'failing']) {
    for (const { state, provider } of integrations) if (state === wanted) found.push({ kind: 'integration', provider, state });
  }
  for (const state of ['unknown', 'dead', 'parked']) {
    const { count, hasMore } = states[state] ?? { count: 0, hasMore: false };
    if (count > 0) found.push({ kind: 'actions', state, count, hasMore });
  }
  for (const wanted of ['limited', 'unverified']) {
    for (const { state, provider } of integrations) if (state === wanted) found.push({ kind: 'integration', provider, state });
  }
  for (const { provider, rotation_due: isDue } of integrations) if (isDue) found.push({ kind: 'due', provider });
  if (refused > 0) found.push({ kind: 'refused', count: refused });
  return found;
}

/** A time that passed, in words. @param {number | null} ms */
export function duration(ms) {
  if (ms === null) return '–';
  if (ms < 1_000) return `${Math.max(0, Math.round(ms))} ms`;
  if (ms < 60_000) return `${(ms / 1_000).toFixed(1)} s`;
  return ms < 3_600_000 ? `${Math.round(ms / 60_000)} min` : `${Math.round(ms / 3_600_000)} h`;
}
