// The settings of an organisation as fields of a form, and back; where an error belongs. Pure.

/**
 * @typedef {import('../types/api.d.ts').SettingsView} Settings
 * @typedef {{from: string, until: string}} Pair
 * @typedef {object} Draft what the fields hold
 * @property {string} zone empty: UTC
 * @property {boolean} hasHours
 * @property {Record<string, string>} days pairs of a weekday as a text; empty: closed
 * @property {string} quietFrom
 * @property {string} quietUntil
 * @property {string} days_kept empty: as long as the installation
 */

export const WEEKDAYS = /** @type {const} */ (['monday', 'tuesday', 'wednesday', 'thursday', 'friday', 'saturday', 'sunday']);

/** What a first choice of opening hours begins with. */
const USUAL = '09:00–17:00';

/** @param {Pair[] | null | undefined} pairs */
export function textOf(pairs) {
  return (pairs ?? []).map(({ from, until }) => `${from}–${until}`).join(', ');
}

/**
 * The pairs that a text means: `9-12:30, 13:30 – 18:00`. What is no time stays as it is, so that
 * the API names it.
 * @param {string} text
 * @returns {Pair[]}
 */
export function pairsOf(text) {
  const parts = text.split(/[,;]/).map((part) => part.trim()).filter((part) => part !== '');
  return parts.map((part) => {
    const [from = '', ...rest] = part.split(/\s*(?:-|–|—|\bto\b|\buntil\b)\s*/);
    return { from: timeOf(from), until: timeOf(rest.join('–')) };
  });
}

/** `9` and `9.30` as the API writes them. @param {string} text */
function timeOf(text) {
  const [, hour, minute] = /^(\d{1,2})(?:[:.](\d{2}))?$/.exec(text.trim()) ?? [];
  return hour === undefined ? text.trim() : `${hour.padStart(2, '0')}:${minute ?? '00'}`;
}

/** @param {Settings} settings @returns {Draft} */
export function draftOf(settings) {
  const hours = settings.opening_hours;
  const isWeekend = (/** @type {string} */ day) => day === 'saturday' || day === 'sunday';
  const shown = (/** @type {typeof WEEKDAYS[number]} */ day) => (hours ? textOf(hours[day]) : isWeekend(day) ? '' : USUAL);
  return {
    zone: settings.time_zone ?? '',
    hasHours: hours !== null && hours !== undefined,
    days: Object.fromEntries(WEEKDAYS.map((day) => [day, shown(day)])),
    quietFrom: settings.quiet_hours?.from ?? '',
    quietUntil: settings.quiet_hours?.until ?? '',
    days_kept: settings.retention_days === null || settings.retention_days === undefined ? '' : String(settings.retention_days),
  };
}

/** What is sent for a draft. @param {Draft} draft */
export function changesOf(draft) {
  const { quietFrom: from, quietUntil: until } = draft;
  const kept = draft.days_kept.trim();
  return {
    time_zone: draft.zone.trim() === '' ? null : draft.zone.trim(),
    opening_hours: draft.hasHours ? Object.fromEntries(WEEKDAYS.map((day) => [day, pairsOf(draft.days[day] ?? '')])) : null,
    quiet_hours: from === '' && until === '' ? null : { from, until },
    retention_days: kept === '' ? null : /^\d+$/.test(kept) ? Number(kept) : kept,
  };
}

const FIELDS = ['time_zone', ...WEEKDAYS.map((day) => `opening_hours.${day}`), 'quiet_hours.from', 'quiet_hours.until', 'retention_days'];

/**
 * Problems by the fields of the form; those of no field stand under an empty name.
 * @param {{field: string, problem: string}[]} errors
 * @returns {Record<string, string>}
 */
export function placed(errors) {
  /** @type {Record<string, string>} */
  const found = {};
  for (const { field, problem } of errors) {
    const whole = field === 'quiet_hours' ? 'quiet_hours.from' : field;
    const name = FIELDS.find((each) => whole === each || whole.startsWith(`${each}[`)) ?? '';
    const told = name === '' && field !== '' ? `${field}: ${problem}` : problem;
    if (found[name] === undefined) found[name] = told;
    else if (!found[name].split('; ').includes(told)) found[name] = `${found[name]}; ${told}`;
  }
  return found;
}
