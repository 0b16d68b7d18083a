// The forms of the providers, drawn from GET /api/providers. They show the state of a card and tell
// what the person does; they keep nothing themselves but the text in the fields.

import { isNumber, shownFields } from '../lib/fields.js';
import { freshId, h, replace } from '../lib/dom.js';
import { groupedNumber } from '../lib/phone.js';
import { note, outward } from './bits.js';
import { groupWhileTyping } from './phone-input.js';
import texts from '../texts.js';

/**
 * @typedef {import('../lib/card.js').Card} Card
 * @typedef {(event: {type: string, [more: string]: any}) => void} Dispatch
 */

/** What every form has: a card's state comes in by `show`. */
class ProviderForm extends HTMLElement {
  /** @type {Dispatch} */
  dispatch = () => {};

  /** Closes the dialog that the form stands in. */
  close = () => {};

  /** @param {Card} _card */
  show(_card) {}
}

class CredentialForm extends ProviderForm {
  /** @type {Map<string, {row: HTMLElement, input: HTMLInputElement, error: HTMLElement}>} */
  rows = new Map();
  /** What stands in the note now. */
  saidBefore = '';
  isPressing = false;

  /** @param {Card} card */
  build(card) {
    const { form } = card;
    const ways = form.one_of.length > 1 ? this.ways(card) : null;
    const rows = form.fields.map((field) => this.row(field, card));
    // The fields of a choice stand together, below it.
    this.said = h('div.form-said');
    this.testButton = h('button', { type: 'button', onclick: () => this.dispatch({ type: 'test' }) }, texts.form.test);
    this.saveButton = h('button.primary', { type: 'submit' }, texts.form.save);
    const element = h(
      'form',
      { novalidate: true, autocomplete: 'off', 'aria-label': texts.form.title.connect(form.name) },
      h('p', null, outward(form.help_url, texts.form.help(form.name))),
      ways ? [rows.slice(0, 1), ways, rows.slice(1)] : rows,
      h(
        'div.form-end',
        null,
        this.said,
        h('footer', null, h('button', { type: 'button', onclick: () => this.close() }, texts.bits.cancel), this.testButton, this.saveButton),
      ),
    );
    element.addEventListener('submit', (/** @type {Event} */ event) => {
      event.preventDefault();
      this.dispatch({ type: 'save' });
      this.focusError();
    });
    element.addEventListener('pointerdown', (/** @type {Event} */ event) => {
      this.isPressing = /** @type {Element} */ (event.target).closest('button') !== null;
    });
    element.addEventListener('pointerup', () => (this.isPressing = false));
    element.addEventListener('pointercancel', () => (this.isPressing = false));
    this.append(element);
  }

  /** @param {Card} card */
  ways({ form, opened }) {
    const name = freshId('way');
    const label = (/** @type {string[]} */ way) => way.map((each) => form.fields.find((field) => field.name === each)?.label ?? each).join(' + ');
    return h(
      'fieldset.ways',
      null,
      h('legend', null, texts.form.way),
      form.one_of.map((way, at) =>
        h(
          'label',
          null,
          h('input', { type: 'radio', name, value: String(at), checked: at === opened?.way, onchange: () => this.dispatch({ type: 'way', way: at }) }),
          label(way),
        ),
      ),
    );
  }

  /** @param {import('../lib/fields.js').Field} field @param {Card} card */
  row(field, card) {
    const id = freshId(field.name);
    const error = h('p.field-error', { id: `${id}-error` });
    const value = card.opened?.values[field.name] ?? '';
    const isKept = field.secret && (card.stored?.secrets_set ?? []).includes(field.name);
    /** @type {HTMLInputElement} */
    const input = h('input', {
      id,
      name: field.name,
      type: field.secret ? 'password' : isNumber(field) ? 'tel' : 'text',
      value: isNumber(field) ? groupedNumber(value) : value,
      autocomplete: 'off',
      spellcheck: 'false',
      autocapitalize: 'none',
      'aria-describedby': `${id}-help ${id}-error`,
    });
    if (isNumber(field)) groupWhileTyping(input);
    input.addEventListener('input', () => this.dispatch({ type: 'input', name: field.name, value: input.value }));
    input.addEventListener('focusout', () => {
      // A button that is being pressed must not move away below the pointer.
      if (this.isPressing) return;
      this.dispatch({ type: 'left', name: field.name });
    });
    const needed = field.required || card.form.one_of.some((way) => way.includes(field.name));
    const row = h(
      'div.field',
      { 'data-field': field.name },
      h('label', { for: id }, field.label, needed ? null : h('span.optional', null, ` ${texts.form.optional}`)),
      h('div.input', null, input, field.secret ? eye(input, field.label) : null),
      h(
        'p.hint',
        { id: `${id}-help` },
        field.help,
        ' ',
        isKept ? texts.form.kept : field.example && !field.secret ? texts.form.example(field.example) : null,
      ),
      error,
    );
    this.rows.set(field.name, { row, input, error });
    return row;
  }

  /** @param {Card} card */
  show(card) {
    if (card.opened === null) return;
    if (this.rows.size === 0) this.build(card);
    const { form, opened } = card;
    const shown = new Set(shownFields(form, opened.way).map((field) => field.name));
    const isBusy = opened.phase === 'saving';
    for (const [name, { row, input, error }] of this.rows) {
      row.hidden = !shown.has(name);
      input.readOnly = isBusy;
      const text = opened.errors[name] ?? '';
      if (error.textContent !== text) error.textContent = text;
      input.toggleAttribute('aria-invalid', text !== '');
      if (text !== '') input.setAttribute('aria-invalid', 'true');
    }
    this.toggleAttribute('aria-busy', opened.phase !== 'editing');
    this.setAttribute('data-phase', opened.phase);
    this.testButton.disabled = this.saveButton.disabled = opened.phase !== 'editing';
    this.testButton.textContent = opened.phase === 'testing' ? texts.form.testing : texts.form.test;
    this.saveButton.textContent = isBusy ? texts.form.saving : texts.form.save;
    const said = JSON.stringify([opened.tested, opened.refusal]);
    if (said === this.saidBefore) return;
    this.saidBefore = said;
    replace(this.said, outcome(card, this.dispatch));
    if (opened.refusal !== null) this.focusError();
  }

  /** Puts the focus on the first field that is wrong. */
  focusError() {
    for (const { row, input } of this.rows.values()) {
      if (!row.hidden && input.hasAttribute('aria-invalid')) return input.focus();
    }
  }
}

/** @param {HTMLInputElement} input @param {string} label */
function eye(input, label) {
  const button = h('button.eye', { type: 'button', 'aria-pressed': 'false' });
  const show = () => {
    const isShown = input.type === 'text';
    button.setAttribute('aria-pressed', String(isShown));
    button.setAttribute('aria-label', isShown ? texts.bits.hide(label) : texts.bits.show(label));
    button.textContent = isShown ? texts.bits.hide('').trim() : texts.bits.show('').trim();
  };
  button.addEventListener('click', () => {
    input.type = input.type === 'text' ? 'password' : 'text';
    show();
  });
  show();
  return button;
}

/** What a test or a refused save said. @param {Card} card @param {Dispatch} dispatch */
function outcome({ form, opened }, dispatch) {
  const tested = opened?.tested ?? null;
  const refusal = opened?.refusal ?? null;
  if (tested !== null) {
    const label = (/** @type {string} */ name) => form.fields.find((field) => field.name === name)?.label ?? name;
    const account = tested.replaces_account;
    const missing = typeof tested.missing === 'string' ? [tested.missing] : (tested.missing ?? []);
    return note(
      tested.state === 'connected' && !(tested.warnings ?? []).length ? 'good' : 'warn',
      h('p', { role: 'status' }, texts.form.tested[tested.state] ?? texts.states[tested.state] ?? tested.state),
      missing.length > 0 && h('p', null, texts.card.cannot, ' ', missing.map((/** @type {any} */ each) => (typeof each === 'string' ? each : each.feature)).join(', ')),
      (tested.warnings ?? []).map(({ field, problem }) => h('p', null, `${label(field)}: ${problem}`)),
      account && h('p', null, texts.form.replaces(account.name ?? account.id)),
    );
  }
  if (refusal === null) return null;
  const again = refusedHelp(form, refusal, dispatch);
  return note(
    'bad',
    h('p', null, refusal.text),
    refusal.provider && h('p', null, texts.card.providerSays(form.name), ' ', h('q', null, refusal.provider)),
    again,
    refusal.requestId && h('p.quiet', null, texts.bits.requestId(refusal.requestId)),
  );
}

/** The way out of a refusal, where there is one. @param {import('../lib/fields.js').Form} form @param {import('../lib/card.js').Refusal} refusal @param {Dispatch} dispatch */
function refusedHelp(form, { code, accounts }, dispatch) {
  const name = (/** @type {string | null | undefined} */ account) => account ?? '–';
  switch (code) {
    case 'provider_unreachable':
      return [
        h('p', null, texts.form.unreachable),
        h('button', { type: 'button', onclick: () => dispatch({ type: 'save', unverified: true }) }, texts.form.saveUnverified),
      ];
    case 'account_differs':
      return [
        accounts && h('p', null, texts.form.differs(name(accounts.before), name(accounts.now))),
        h('button', { type: 'button', onclick: () => dispatch({ type: form.connect === 'oauth' ? 'leave' : 'save', replace: true }) }, texts.form.saveReplacing),
      ];
    case 'precondition_failed':
      return h('p', null, texts.form.changedElsewhere);
    default:
      return null;
  }
}

/** Google has no fields: the person goes to its own page and comes back. */
class GoogleCalendarOauthForm extends ProviderForm {
  /** @param {Card} card */
  show(card) {
    if (card.opened === null) return;
    const { opened } = card;
    const consent = texts.card.consent;
    if (this.button === undefined) {
      this.button = h('button.primary', { type: 'button', onclick: () => this.dispatch({ type: 'leave', replace: this.other?.checked === true }) });
      this.other = card.stored?.account ? h('input', { type: 'checkbox' }) : undefined;
      this.said = h('div.form-said');
      this.append(
        h('p', null, consent.lead),
        h('ul', null, consent.scopes.map((/** @type {string} */ text) => h('li', null, text))),
        h('p', null, consent.ticks),
        this.other ? h('label.check', null, this.other, consent.other) : '',
        this.said,
        h('footer', null, h('button', { type: 'button', onclick: () => this.close() }, texts.bits.cancel), this.button),
      );
    }
    const isLeaving = opened.phase === 'leaving';
    this.button.disabled = isLeaving;
    this.button.textContent = isLeaving ? consent.leaving : consent.button;
    this.setAttribute('data-phase', opened.phase);
    replace(this.said, outcome(card, this.dispatch));
  }
}

/** The element of each provider. @type {Record<string, string>} */
const ELEMENTS = {
  vapi: 'vapi-credential-form',
  twilio: 'twilio-credential-form',
  google_calendar: 'google-calendar-oauth-form',
  resend: 'resend-credential-form',
  elevenlabs: 'elevenlabs-credential-form',
};

for (const [provider, name] of Object.entries(ELEMENTS)) {
  const base = provider === 'google_calendar' ? GoogleCalendarOauthForm : CredentialForm;
  customElements.define(name, /** @type {any} */ (class extends base {}));
}

/** The form of a provider. @param {string} provider @returns {ProviderForm} */
export function formOf(provider) {
  return h(ELEMENTS[provider] ?? 'vapi-credential-form');
}
