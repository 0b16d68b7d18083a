// Times, numbers and states as people read them, in the zone and the language of the browser.

import texts from '../texts.js';

/**
 * A format of each kind is made once: to make one takes longer than to use it.
 * @type {Map<string, any>}
 */
const formats = new Map();

/**
 * @template Format
 * @param {new (language: string | undefined, options: any) => Format} Kind of `Intl`
 * @param {string | undefined} language
 * @param {Record<string, any>} [options]
 * @returns {Format}
 */
export function formatOf(Kind, language, options = {}) {
  const key = JSON.stringify([Kind.name, language, options]);
  const known = formats.get(key) ?? new Kind(language, options);
  formats.set(key, known);
  return known;
}

/** @type {[Intl.RelativeTimeFormatUnit, number][]} */
const UNITS = [
  ['day', 86_400],
  ['hour', 3_600],
  ['minute', 60],
];

/**
 * `3 minutes ago`, `in 20 seconds`.
 * @param {string | Date} time
 * @param {number} now in milliseconds
 * @param {string} [language]
 */
export function ago(time, now, language) {
  const seconds = Math.round((new Date(time).getTime() - now) / 1000);
  if (Math.abs(seconds) < 5) return texts.times.now;
  const relative = formatOf(Intl.RelativeTimeFormat, language, { numeric: 'always' });
  for (const [unit, size] of UNITS) {
    if (Math.abs(seconds) >= size) return relative.format(Math.trunc(seconds / size), unit);
  }
  return relative.format(seconds, 'second');
}

/**
 * The exact time, with its zone.
 * @param {string | Date} time
 * @param {string} [language]
 * @param {string} [zone]
 */
export function exact(time, language, zone) {
  return formatOf(Intl.DateTimeFormat, language, {
    year: 'numeric',
    month: 'short',
    day: 'numeric',
    hour: '2-digit',
    minute: '2-digit',
    second: '2-digit',
    timeZoneName: 'short',
    timeZone: zone,
  }).format(new Date(time));
}

/** A time for a list: without its year and its seconds. @param {string | Date} time @param {string} [language] @param {string} [zone] */
export function short(time, language, zone) {
  return formatOf(Intl.DateTimeFormat, language, { month: 'short', day: 'numeric', hour: '2-digit', minute: '2-digit', timeZone: zone }).format(new Date(time));
}

/**
 * @param {number} count
 * @param {string} [language]
 */
export function number(count, language) {
  return formatOf(Intl.NumberFormat, language).format(count);
}

/** A part of a whole, from 0 to 1. `null`: there is no whole. @param {number | null | undefined} part @param {string} [language] */
export function share(part, language) {
  return part === null || part === undefined ? '–' : formatOf(Intl.NumberFormat, language, { style: 'percent', maximumFractionDigits: 1 }).format(part);
}

/** @param {number} bytes */
export function bytes(bytes) {
  return bytes < 1024 ? `${bytes} B` : bytes < 1024 * 1024 ? `${Math.round(bytes / 1024)} kB` : `${(bytes / 1_048_576).toFixed(1)} MB`;
}

/**
 * Tone of the badge of each state of a connection: to a provider, or to a server of the
 * organisation's own.
 * @type {Record<string, string>}
 */
export const TONES = {
  loading: 'quiet',
  not_connected: 'quiet',
  connected: 'good',
  unverified: 'warn',
  limited: 'warn',
  failing: 'bad',
  needs_reconnecting: 'bad',
  undecryptable: 'bad',
};
