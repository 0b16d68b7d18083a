// Work on many actions at once: what a request names, what a plan says, how far a job is. Pure.

/** From which states a job can begin, as the API has it. @type {Record<string, string[]>} */
export const FROM = {
  retry: ['dead', 'parked', 'suppressed', 'cancelled', 'waiting', 'unknown'],
  cancel: ['pending', 'waiting', 'parked'],
};

const FIELDS = ['state', 'provider', 'cause', 'rule_id', 'since', 'until'];

/**
 * The request for what a list shows. `null`: not every row that the filters name can be meant, so
 * that nothing is offered.
 * @param {'retry' | 'cancel'} verb
 * @param {URLSearchParams} query the filters of the list
 * @returns {Record<string, string> | null}
 */
export function requestOf(verb, query) {
  const state = query.get('state') ?? '';
  if (!FROM[verb].includes(state)) return null;
  /** @type {Record<string, string>} */
  const request = {};
  for (const [name, value] of query) {
    if (value === '') continue;
    if (!FIELDS.includes(name)) return null;
    request[name] = value;
  }
  return request;
}

/**
 * The lines of a plan, the largest first. One organisation's plan names no organisation.
 * @param {{org_id: string, state: string, provider: string, count: number}[]} by
 */
export function linesOf(by) {
  const isOfOne = new Set(by.map((one) => one.org_id)).size < 2;
  const rows = by.filter((one) => one.count > 0).sort((a, b) => b.count - a.count);
  return rows.map(({ org_id, ...rest }) => ({ ...rest, org_id: isOfOne ? null : org_id }));
}

/**
 * How far a job is.
 * @param {{state: string, planned: number, done: number, skipped: number}} job
 * @returns {{max: number, at: number, left: number, hasEnded: boolean}} `left`: a stop leaves some
 */
export function progressOf({ state, planned, done, skipped }) {
  const at = done + skipped;
  const hasEnded = state !== 'running';
  // More can have come than the plan counted; an empty job is a whole one.
  const max = Math.max(planned, at, 1);
  return { max, at: state === 'done' ? max : at, left: Math.max(0, planned - at), hasEnded };
}

/** Jobs that an address carries. */
const JOBS_MAX = 40;

/** @param {{org_id: string, id: string}[]} jobs */
export function addressOf(jobs) {
  return jobs.slice(0, JOBS_MAX).map(({ org_id, id }) => `${org_id}:${id}`).join(',');
}

/** The jobs that an address names. @param {string | null} text @returns {{org_id: string, id: string}[]} */
export function jobsOf(text) {
  const pairs = (text ?? '').split(',').map((pair) => pair.split(':'));
  return pairs.filter((pair) => pair.length === 2 && pair.every((part) => part !== '')).slice(0, JOBS_MAX).map(([org_id, id]) => ({ org_id, id }));
}
