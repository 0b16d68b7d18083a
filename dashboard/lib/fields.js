// A provider's form as data: which fields are shown, what is wrong with them, and what is sent.

import { plainNumber } from './phone.js';
import texts from '../texts.js';

/**
 * @typedef {import('../types/api.d.ts').FieldView} Field
 * @typedef {import('../types/api.d.ts').FormView} Form
 *
 * @typedef {{settings?: Record<string, string>, secrets_set?: string[]}} Stored
 * @typedef {Record<string, string>} Values
 */

/** Whether a field holds a telephone number: its example is one. @param {Field} field */
export function isNumber(field) {
  return !field.secret && /^\+\d+$/.test(field.example);
}

/**
 * The values that an opened form begins with: what is stored and no secret.
 * @param {Form} form
 * @param {Stored | null} stored
 * @returns {Values}
 */
export function initialValues(form, stored) {
  /** @type {Values} */
  const values = {};
  for (const field of form.fields) values[field.name] = field.secret ? '' : (stored?.settings?.[field.name] ?? '');
  return values;
}

/**
 * Which of the alternative sets of fields is in use: that of what is stored, else the first.
 * @param {Form} form
 * @param {Stored | null} stored
 */
export function initialWay(form, stored) {
  const set = new Set([...(stored?.secrets_set ?? []), ...Object.keys(stored?.settings ?? {})]);
  const at = form.one_of.findIndex((way) => way.every((name) => set.has(name)));
  return Math.max(at, 0);
}

/**
 * The fields that belong to a way: those of other ways are left out.
 * @param {Form} form
 * @param {number} way
 */
export function shownFields(form, way) {
  const own = new Set(form.one_of[way] ?? []);
  const others = new Set(form.one_of.flat().filter((name) => !own.has(name)));
  return form.fields.filter((field) => !others.has(field.name));
}

/** @param {Form} form @param {Field} field @param {number} way */
function isNeeded(form, field, way) {
  return field.required || (form.one_of[way] ?? []).includes(field.name);
}

/** The text as it is sent. @param {Field} field @param {string} text */
function plain(field, text) {
  return isNumber(field) ? plainNumber(text) : text.trim();
}

/**
 * What is wrong with one field, or `null`.
 * @param {Form} form
 * @param {Field} field
 * @param {number} way
 * @param {Values} values
 * @param {Stored | null} stored
 */
export function fieldProblem(form, field, way, values, stored) {
  const text = plain(field, values[field.name] ?? '');
  if (text === '') {
    const isKept = field.secret && !isOtherAccount(values, stored) && (stored?.secrets_set ?? []).includes(field.name);
    return isNeeded(form, field, way) && !isKept ? texts.form.missing(field.label) : null;
  }
  if (isNumber(field) && !text.startsWith('+')) return texts.form.noCountry;
  return new RegExp(`^(?:${field.pattern})$`, 'v').test(text) ? null : sentence(field.expected);
}

/** Another account keeps nothing of the one that is stored. @param {Values} values @param {Stored | null} stored */
function isOtherAccount(values, stored) {
  const before = stored?.settings?.account_sid;
  return before !== undefined && (values.account_sid ?? '').trim() !== before;
}

/**
 * Everything that is wrong, by field.
 * @param {Form} form
 * @param {number} way
 * @param {Values} values
 * @param {Stored | null} stored
 * @returns {Record<string, string>}
 */
export function problems(form, way, values, stored) {
  /** @type {Record<string, string>} */
  const found = {};
  for (const field of shownFields(form, way)) {
    const problem = fieldProblem(form, field, way, values, stored);
    if (problem !== null) found[field.name] = problem;
  }
  return found;
}

/**
 * The body to send. A secret that was left empty keeps its stored value; a setting that was emptied
 * is removed by `null`.
 * @param {Form} form
 * @param {number} way
 * @param {Values} values
 * @param {Stored | null} stored
 * @returns {Record<string, string | null>}
 */
export function bodyOf(form, way, values, stored) {
  /** @type {Record<string, string | null>} */
  const body = {};
  for (const field of shownFields(form, way)) {
    const text = plain(field, values[field.name] ?? '');
    if (text !== '') body[field.name] = text;
    else if (!field.secret && stored?.settings?.[field.name] !== undefined) body[field.name] = null;
  }
  return body;
}

/** `expected 8 digits` as a sentence. @param {string} text */
export function sentence(text) {
  const first = text.charAt(0).toUpperCase() + text.slice(1);
  return /[.!?]$/.test(first) ? first : `${first}.`;
}
