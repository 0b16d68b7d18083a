// The state machine of one integration's card. Pure: `next(state, event)` gives the next state, and
// `model(state)` what the card shows. The element asks the API and tells the answers as events.
//
// Invariant: an answer counts only while its question is the newest of its card. Each question
// takes a ticket; whatever changes the card meanwhile (typing, another question, a form that is
// closed) takes a new one, and an answer with an older ticket is dropped.

import { initialValues, initialWay, problems, sentence } from './fields.js';
import { TONES } from './format.js';
import texts from '../texts.js';

/**
 * @typedef {import('./fields.js').Form} Form
 *
 * @typedef {import('../types/api.d.ts').IntegrationView} Integration as GET /api/integrations/status lists it
 * @typedef {import('../types/api.d.ts').TestedView} Tested
 *
 * @typedef {object} Refusal what a form or a card shows of an ApiError
 * @property {string} code
 * @property {string} text
 * @property {string | null} provider the provider's own words
 * @property {string | null} requestId
 * @property {any} accounts
 *
 * @typedef {object} Opened the form while its dialog is open
 * @property {import('./fields.js').Values} values
 * @property {number} way
 * @property {'editing' | 'testing' | 'saving' | 'leaving'} phase `leaving`: on the way to the provider's own page
 * @property {Record<string, string>} errors
 * @property {Refusal | null} refusal
 * @property {Tested | null} tested
 * @property {boolean} unverified save without asking the provider
 * @property {boolean} replace take another account than before
 *
 * @typedef {object} Card
 * @property {Form} form
 * @property {Integration | null} stored `null` until it is loaded
 * @property {number} ticket
 * @property {number} reading ticket of the reading of the status that is under way
 * @property {'verifying' | 'disconnecting' | null} busy
 * @property {boolean} asking whether the dialog before a disconnect is open
 * @property {Opened | null} opened
 * @property {Said | null} said
 *
 * @typedef {{kind: 'good' | 'bad' | 'warn', text: string, provider?: string | null, requestId?: string | null, again?: string | null}} Said `again`: when to check once more
 */

/** @param {Form} form @returns {Card} */
export function card(form) {
  return { form, stored: null, ticket: 0, reading: 0, busy: null, asking: false, opened: null, said: null };
}

/**
 * @param {Card} state
 * @param {{type: string, [more: string]: any}} event
 * @returns {Card}
 */
export function next(state, event) {
  switch (event.type) {
    // The status of all cards was read. `ticket` is the card's ticket when the reading began.
    case 'status':
      if (event.ticket !== state.ticket || state.busy !== null) return state;
      if (state.opened !== null && state.opened.phase !== 'editing') return state;
      return { ...state, stored: event.stored };

    case 'open':
      if (state.busy !== null) return state;
      return {
        ...changed(state),
        said: null,
        asking: false,
        opened: {
          values: initialValues(state.form, state.stored),
          way: initialWay(state.form, state.stored),
          phase: 'editing',
          errors: {},
          refusal: null,
          tested: null,
          unverified: false,
          replace: false,
        },
      };

    case 'close':
      // What is being saved is told by the answer: the dialog stays open for it.
      if (state.opened === null || state.opened.phase === 'saving') return state;
      return { ...changed(state), opened: null };

    case 'input': {
      if (state.opened === null || state.opened.phase === 'saving') return state;
      const { [event.name]: _, ...errors } = state.opened.errors;
      const values = { ...state.opened.values, [event.name]: event.value };
      return edited(state, { values, errors });
    }

    case 'left': {
      // The field lost the focus: only now a half-typed value is called wrong.
      if (state.opened === null) return state;
      const { values, way } = state.opened;
      if ((values[event.name] ?? '') === '') return state;
      const problem = problems(state.form, way, values, state.stored)[event.name];
      if (problem === undefined) return state;
      return { ...state, opened: { ...state.opened, errors: { ...state.opened.errors, [event.name]: problem } } };
    }

    case 'way':
      if (state.opened === null || state.opened.phase === 'saving') return state;
      return edited(state, { way: event.way, errors: {} });

    case 'test':
    case 'save': {
      const { opened } = state;
      if (opened === null || opened.phase !== 'editing') return state;
      const errors = problems(state.form, opened.way, opened.values, state.stored);
      if (Object.keys(errors).length > 0) return { ...state, opened: { ...opened, errors, refusal: null } };
      return {
        ...changed(state),
        opened: {
          ...opened,
          errors: {},
          refusal: null,
          tested: event.type === 'test' ? null : opened.tested,
          phase: event.type === 'test' ? 'testing' : 'saving',
          unverified: event.unverified === true,
          replace: event.replace === true,
        },
      };
    }

    case 'tested':
      if (event.ticket !== state.ticket || state.opened === null) return state;
      return { ...state, opened: { ...state.opened, phase: 'editing', tested: event.tested } };

    case 'saved':
      if (event.ticket !== state.ticket) return state;
      return {
        ...changed(state),
        stored: event.stored,
        opened: null,
        said: savedWords(state.form, event.stored.warnings ?? []),
      };

    case 'leave': {
      const { opened } = state;
      if (opened === null || opened.phase !== 'editing') return state;
      return { ...changed(state), opened: { ...opened, phase: 'leaving', refusal: null, replace: event.replace === true } };
    }

    case 'verify':
      if (state.busy !== null) return state;
      return { ...changed(state), busy: 'verifying', said: null };

    case 'verified':
      if (event.ticket !== state.ticket) return state;
      return {
        ...changed(state),
        busy: null,
        stored: event.stored,
        said: checkedWords(state.form, event.stored),
      };

    case 'ask':
      if (state.busy !== null) return state;
      return { ...state, asking: true, said: null };

    case 'keep':
      return { ...state, asking: false };

    case 'disconnect':
      if (!state.asking || state.busy !== null) return state;
      return { ...changed(state), busy: 'disconnecting' };

    case 'disconnected':
      if (event.ticket !== state.ticket) return state;
      return {
        ...changed(state),
        busy: null,
        asking: false,
        stored: event.stored,
        said: { kind: 'good', text: texts.card.disconnected(state.form.name) },
      };

    case 'refused':
      return refused(state, event);

    // Back from the provider's consent page.
    case 'returned':
      return { ...state, said: event.said };

    default:
      throw new Error(`no such event: ${event.type}`);
  }
}

/**
 * What is said after a save: also what is stored and will not work.
 * @param {Form} form
 * @param {{field: string, problem: string}[]} warnings
 * @returns {Said}
 */
function savedWords(form, warnings) {
  const label = (/** @type {string} */ name) => form.fields.find((field) => field.name === name)?.label ?? name;
  const words = warnings.map(({ field, problem }) => `${label(field)}: ${sentence(problem)}`);
  return { kind: words.length === 0 ? 'good' : 'warn', text: [texts.card.saved(form.name), ...words].join(' ') };
}

/** What is said after a check: the state itself says what is wrong. @param {Form} form @param {Integration} stored @returns {Said | null} */
function checkedWords(form, stored) {
  const why = stored.not_checked ?? null;
  if (why === null) return isGood(stored) ? { kind: 'good', text: texts.card.checked } : null;
  const words = texts.card.notChecked;
  return { kind: 'warn', text: (words[why.cause] ?? words.other)(form.name), again: why.try_again_at };
}

/** A state whose older questions no longer count. @param {Card} state @returns {Card} */
function changed(state) {
  return { ...state, ticket: state.ticket + 1 };
}

/** Another value ends a test that is under way, and what an earlier one said. @param {Card} state @param {Partial<Opened>} part @returns {Card} */
function edited(state, part) {
  const opened = /** @type {Opened} */ (state.opened);
  return {
    ...changed(state),
    opened: { ...opened, ...part, phase: 'editing', tested: null, refusal: null },
  };
}

/** @param {Card} state @param {any} event @returns {Card} */
function refused(state, { ticket, error }) {
  if (ticket !== state.ticket) return state;
  const refusal = {
    code: error.code,
    text: texts.card.refusals[error.code] ?? error.message,
    provider: providersWords(error),
    requestId: error.requestId ?? null,
    accounts: error.problem?.accounts ?? null,
  };
  if (state.opened !== null && state.opened.phase !== 'editing') {
    /** @type {Record<string, string>} */
    const errors = {};
    const names = new Set(state.form.fields.map((field) => field.name));
    for (const { field, problem } of error.errors ?? []) if (names.has(field)) errors[field] = sentence(problem);
    return { ...changed(state), opened: { ...state.opened, phase: 'editing', errors, refusal, tested: null } };
  }
  const said = { kind: /** @type {'bad'} */ ('bad'), text: refusal.text, provider: refusal.provider, requestId: refusal.requestId };
  return { ...changed(state), busy: null, asking: false, said };
}

/** The provider's own words, apart from ours. @param {any} error */
function providersWords(error) {
  if (!error.provider?.message) return null;
  const { message, http_status: status, code } = error.provider;
  const facts = [status && `HTTP ${status}`, code && texts.card.providerCode(code)].filter(Boolean).join(', ');
  return facts === '' ? message : `${message} (${facts})`;
}

/** @param {Integration} stored */
function isGood(stored) {
  return stored.state === 'connected' || stored.state === 'limited';
}

/**
 * What a card shows to a role that may check (`manage`) and connect.
 * @param {Card} state
 * @param {{manage: boolean, connect: boolean}} may
 */
export function model(state, may) {
  const { stored, form } = state;
  const name = stored === null ? 'loading' : stored.state;
  const isConnected = stored !== null && name !== 'not_connected';
  /** @type {{key: string, text?: string, time?: string}[]} */
  const facts = [];
  if (stored !== null && isConnected) {
    const account = stored.account?.name ?? stored.account?.id;
    if (account) facts.push({ key: 'account', text: account });
    if (stored.settings.phone_number) facts.push({ key: 'number', text: stored.settings.phone_number });
    if (stored.settings.from) facts.push({ key: 'from', text: stored.settings.from });
    if (stored.last_four) facts.push({ key: 'lastFour', text: stored.last_four });
    if (name === 'failing' && stored.first_failed_at) facts.push({ key: 'since', time: stored.first_failed_at });
    if (name === 'failing' && stored.next_try_at) facts.push({ key: 'nextTry', time: stored.next_try_at });
    if (stored.last_verified_at) facts.push({ key: 'verified', time: stored.last_verified_at });
    if (stored.last_used_at) facts.push({ key: 'used', time: stored.last_used_at });
    const age = ageOf(stored);
    if (age !== null) facts.push({ key: 'age', text: age });
  }
  const isOauth = form.connect === 'oauth';
  const repairs = name === 'needs_reconnecting' || name === 'undecryptable';
  /** @type {{name: string, label: string, primary: boolean}[]} */
  const buttons = [];
  /** @param {boolean} isShown @param {string} name @param {string} label */
  const button = (isShown, name, label, primary = false) => isShown && buttons.push({ name, label, primary });
  if (stored !== null && !isConnected) button(may.connect && form.available, 'open', texts.card.connect, true);
  if (isConnected) {
    button(may.connect && (repairs || (isOauth && name !== 'connected')), 'open', texts.card.reconnect, repairs);
    button(may.manage && name !== 'undecryptable', 'verify', state.busy === 'verifying' ? texts.card.checking : texts.card.check);
    button(may.connect && !repairs && !isOauth, 'open', texts.card.change);
    button(may.connect, 'ask', texts.card.disconnect);
  }
  return {
    state: name,
    tone: TONES[name] ?? 'quiet',
    badge: texts.states[name] ?? name,
    lead: texts.card.leads[name]?.(form.name) ?? null,
    purpose: texts.purposes[form.provider] ?? null,
    missing: stored === null ? [] : missing(stored),
    words: stored?.error ? providersWords({ provider: stored.error }) : null,
    cause: stored?.cause && name !== 'connected' ? (texts.causes[stored.cause] ?? stored.cause) : null,
    advice: (repairs && !may.connect ? texts.card.askOwner : texts.card.advice[name]?.(form.name)) ?? null,
    unavailable: stored !== null && !isConnected && !form.available ? texts.card.unavailable : null,
    held: stored === null ? [] : held(stored),
    problem: stored?.last_problem ?? null,
    due: isConnected && isDue(stored) ? (may.connect ? texts.card.due : texts.card.dueAtOwner) : null,
    facts,
    buttons,
    busy: state.busy,
    said: state.said,
  };
}

/** What a limited credential cannot do. @param {Integration} stored @returns {string[]} */
function missing({ missing }) {
  return missing ? [missing] : [];
}

/** Actions that wait for this credential, where the API counts them. @param {Integration} stored */
function held({ actions }) {
  const names = /** @type {const} */ (['parked', 'unknown', 'waiting']);
  return names.flatMap((name) => (actions?.[name] ? [{ state: name, count: actions[name] }] : []));
}

/** The age of a secret, where the API says it. @param {any} stored @returns {string | null} */
function ageOf({ age_days: age, rotate_after_days: after }) {
  if (typeof age !== 'number') return null;
  return after > 0 ? texts.card.ageOf(age, after) : texts.card.age(age);
}

/** Whether another secret is due. @param {any} stored */
function isDue(stored) {
  return stored.rotation_due === true;
}
