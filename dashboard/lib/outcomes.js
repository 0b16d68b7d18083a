// What became of events and actions, as words and tones.

import texts from '../texts.js';

/** Tone of the badge of each state of an action. @type {Record<string, string>} */
const TONES = {
  pending: 'quiet',
  running: 'quiet',
  succeeded: 'good',
  waiting: 'warn',
  unknown: 'warn',
  parked: 'warn',
  suppressed: 'quiet',
  cancelled: 'quiet',
  dead: 'bad',
};

export const STATES = Object.keys(TONES);

/** The order in which an event's outcomes are told: what needs a person first. */
const BY_WEIGHT = ['dead', 'unknown', 'parked', 'waiting', 'running', 'pending', 'suppressed', 'cancelled', 'succeeded'];

/** @param {string} state */
export function tone(state) {
  return TONES[state] ?? 'quiet';
}

/** @param {string} state @returns {string} */
export function word(state) {
  return texts.actions.states[state] ?? state;
}

/**
 * The outcomes of one event, counted by state.
 * @param {Record<string, number> | null | undefined} counts
 * @returns {{state: string, count: number}[]}
 */
export function outcomes(counts) {
  if (!counts) return [];
  const known = BY_WEIGHT.filter((state) => counts[state] > 0);
  const others = Object.keys(counts).filter((state) => !BY_WEIGHT.includes(state) && counts[state] > 0);
  return [...known, ...others].map((state) => ({ state, count: counts[state] }));
}

/**
 * What a person may do with an action now: as the API says, else by its state.
 * @param {{state: string, can?: string[]}} action
 * @returns {string[]}
 */
export function possible({ state, can }) {
  if (can !== undefined) return can;
  switch (state) {
    case 'dead':
    case 'suppressed':
    case 'cancelled':
      return ['retry'];
    case 'parked':
    case 'waiting':
      return ['retry', 'cancel'];
    case 'pending':
      return ['cancel'];
    case 'unknown':
      return ['resolve'];
    default:
      return [];
  }
}

/**
 * The owner of the secret with this id: a webhook URL, or an integration.
 * @param {string} id
 * @param {any[]} endpoints with their `secrets`
 * @param {any[]} integrations with their `signing_secrets`
 * @returns {{owner: string, isProvider: boolean, lastFour: string | null} | null} `null`: it is not valid any more
 */
export function secretOf(id, endpoints, integrations) {
  const owners = [
    ...endpoints.map(({ name, secrets }) => ({ owner: name, isProvider: false, secrets })),
    ...integrations.map(({ provider, signing_secrets: secrets }) => ({ owner: provider, isProvider: true, secrets })),
  ];
  for (const { owner, isProvider, secrets } of owners) {
    const found = (secrets ?? []).find((/** @type {any} */ secret) => secret.id === id);
    if (found !== undefined) return { owner, isProvider, lastFour: found.last_four ?? null };
  }
  return null;
}

/** How long after an event its actions may still be on their way into the list. */
const PLANNED_WITHIN_MS = 10_000;

/**
 * The outcomes of events, from the newest actions: for an API whose events do not have them.
 * @param {{event_id: string, state: string, created_at: string}[]} actions the newest first
 * @param {boolean} isWhole there are no older ones
 * @returns {(event: {id: string, received_at: string}, now: number) => Record<string, number> | undefined}
 * `undefined` where the actions do not reach back to the event, or may not be planned yet
 */
export function outcomesFrom(actions, isWhole) {
  /** @type {Map<string, Record<string, number>>} */
  const byEvent = new Map();
  for (const { event_id, state } of actions) {
    const counts = byEvent.get(event_id) ?? {};
    counts[state] = (counts[state] ?? 0) + 1;
    byEvent.set(event_id, counts);
  }
  const oldest = actions.at(-1);
  const since = isWhole ? -Infinity : oldest === undefined ? Infinity : new Date(oldest.created_at).getTime();
  return ({ id, received_at }, now) => {
    const at = new Date(received_at).getTime();
    // The oldest page may hold only some of the actions of the event that it ends in.
    if (at <= since) return undefined;
    const found = byEvent.get(id);
    return found ?? (now - at < PLANNED_WITHIN_MS ? undefined : {});
  };
}
