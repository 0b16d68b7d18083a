// Figures of the overview, from the rows of the lists. Pure.

/**
 * @typedef {{key: 'hour' | 'day', ms: number, bars: number}} Span
 * @type {Record<string, Span>}
 */
export const SPANS = {
  hour: { key: 'hour', ms: 3_600_000, bars: 12 },
  day: { key: 'day', ms: 86_400_000, bars: 24 },
};

/**
 * Counts rows by time: one bar for each part of the span, the oldest first.
 * @template Row
 * @param {Row[]} rows
 * @param {(row: Row) => string} timeOf
 * @param {number} now
 * @param {Span} span
 * @param {(row: Row) => string} [kindOf] rows of a bar are counted by it
 * @returns {{from: number, counts: Record<string, number>, total: number}[]}
 */
export function bars(rows, timeOf, now, span, kindOf = () => 'all') {
  const width = span.ms / span.bars;
  // Bars stand on round times, so that a bar does not change while time goes on.
  const end = Math.ceil(now / width) * width;
  const from = end - span.ms;
  const result = Array.from({ length: span.bars }, (_, at) => ({ from: from + at * width, counts: /** @type {Record<string, number>} */ ({}), total: 0 }));
  for (const row of rows) {
    const bar = result[Math.floor((new Date(timeOf(row)).getTime() - from) / width)];
    if (bar === undefined) continue;
    const kind = kindOf(row);
    bar.counts[kind] = (bar.counts[kind] ?? 0) + 1;
    bar.total += 1;
  }
  return result;
}

/**
 * Figures of the actions that were planned in a span.
 * @param {Pick<import('../types/api.d.ts').ActionView, 'state' | 'attempts' | 'created_at' | 'updated_at'>[]} actions
 * @param {number} now
 * @param {Span} span
 */
export function figures(actions, now, span) {
  const since = now - span.ms;
  const within = actions.filter((action) => new Date(action.created_at).getTime() >= since);
  const ended = within.filter(({ state }) => state === 'succeeded' || state === 'dead');
  const good = within.filter(({ state }) => state === 'succeeded');
  const times = good.map((action) => new Date(action.updated_at).getTime() - new Date(action.created_at).getTime()).sort((a, b) => a - b);
  return {
    planned: within.length,
    succeeded: good.length,
    success: ended.length === 0 ? null : good.length / ended.length,
    retried: within.filter(({ attempts }) => attempts > 1).length,
    half: quantile(times, 0.5),
    most: quantile(times, 0.95),
  };
}

/** @param {number[]} sorted @param {number} part */
export function quantile(sorted, part) {
  return sorted.length === 0 ? null : sorted[Math.min(sorted.length - 1, Math.ceil(part * sorted.length) - 1)];
}

/**
 * What a person has to look at, the most urgent first.
 * @param {Pick<import('../types/api.d.ts').IntegrationView, 'provider' | 'state'>[]} integrations
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
