// Small forms and questions in dialogs.

import { freshKey } from '../lib/api.js';
import { freshId, h, replace } from '../lib/dom.js';
import { sentence } from '../lib/fields.js';
import { copyable, note, tell } from './bits.js';
import { openDialog } from './dialog.js';
import { groupWhileTyping } from './phone-input.js';
import texts from '../texts.js';

/**
 * @typedef {object} AskField
 * @property {string} name
 * @property {string} label
 * @property {string} [hint]
 * @property {string} [value]
 * @property {[string, string][]} [options]
 * @property {boolean} [secret]
 * @property {boolean} [optional]
 * @property {string} [type]
 * @property {boolean} [multiline]
 * @property {(values: Record<string, string>) => boolean} [shown] where it says no, the field is
 * hidden and counts as empty
 */

/**
 * A form of a few fields. `send` throws an ApiError where the API refuses; its errors then stand at
 * their fields.
 * @param {object} parts
 * @param {string} parts.title
 * @param {string} [parts.lead]
 * @param {AskField[]} parts.fields
 * @param {string} parts.button
 * @param {(values: Record<string, string>, key: string | null) => Promise<void>} parts.send with a
 * key that stays the same while nothing is changed: sent twice it makes one thing
 */
export function askForm({ title, lead, fields, button, send }) {
  /** @type {Map<string, {input: any, error: HTMLElement, row: HTMLElement}>} */
  const rows = new Map();
  const said = h('div.form-said');
  const submit = h('button.primary', { type: 'submit' }, button);
  const form = h(
    'form',
    { novalidate: true, autocomplete: 'off' },
    lead && h('p', null, lead),
    fields.map((field) => {
      const id = freshId(field.name);
      const error = h('p.field-error', { id: `${id}-error` });
      const common = { id, name: field.name, 'aria-describedby': `${id}-hint ${id}-error`, autocomplete: 'off', spellcheck: 'false' };
      const input = field.options
        ? h('select', common, field.options.map(([value, label]) => h('option', { value, selected: value === field.value }, label)))
        : field.multiline
          ? h('textarea', { ...common, value: field.value ?? '' })
          : h('input', { ...common, type: field.secret ? 'password' : (field.type ?? 'text'), value: field.value ?? '' });
      if (field.type === 'tel') groupWhileTyping(input);
      const row = h(
        'div.field',
        { 'data-field': field.name },
        h('label', { for: id }, field.label, field.optional && h('span.optional', null, ` ${texts.form.optional}`)),
        input,
        h('p.hint', { id: `${id}-hint` }, field.hint ?? null),
        error,
      );
      rows.set(field.name, { input, error, row });
      return row;
    }),
    h('div.form-end', null, said, h('footer', null, h('button', { type: 'button', onclick: () => dialog.close() }, texts.bits.cancel), submit)),
  );
  const values = () => Object.fromEntries([...rows].map(([name, { input, row }]) => [name, row.hidden ? '' : input.value.trim()]));
  const showFields = () => {
    const all = Object.fromEntries([...rows].map(([name, { input }]) => [name, input.value.trim()]));
    for (const { name, shown } of fields) {
      const row = rows.get(name)?.row;
      if (shown && row) row.hidden = !shown(all);
    }
  };
  showFields();
  let isBusy = false;
  let key = freshKey();
  form.addEventListener('input', () => {
    key = freshKey();
    showFields();
  });
  form.addEventListener('submit', async (/** @type {Event} */ event) => {
    event.preventDefault();
    if (isBusy) return;
    let isComplete = true;
    for (const field of fields) {
      const { input, error, row } = /** @type {{input: any, error: HTMLElement, row: HTMLElement}} */ (rows.get(field.name));
      const isMissing = !field.optional && !row.hidden && input.value.trim() === '';
      show(input, error, isMissing ? texts.form.missing(field.label) : '');
      if (isMissing && isComplete) input.focus();
      isComplete &&= !isMissing;
    }
    if (!isComplete) return;
    isBusy = submit.disabled = true;
    replace(said);
    try {
      await send(values(), key);
      dialog.close();
    } catch (thrown) {
      const { errors = [], message, requestId } = /** @type {any} */ (thrown);
      let focused = false;
      for (const each of errors) {
        const row = rows.get(each.field);
        if (row === undefined) continue;
        show(row.input, row.error, sentence(each.problem));
        if (!focused) row.input.focus();
        focused = true;
      }
      if (!focused) replace(said, note('bad', h('p', null, message), requestId && h('p.quiet', null, texts.bits.requestId(requestId))));
    } finally {
      isBusy = submit.disabled = false;
    }
  });
  const dialog = openDialog({ title, body: form, mayClose: () => !isBusy });
  form.querySelector('input, select, textarea')?.focus();
}

/** @param {any} input @param {HTMLElement} error @param {string} text */
function show(input, error, text) {
  error.textContent = text;
  if (text === '') input.removeAttribute('aria-invalid');
  else input.setAttribute('aria-invalid', 'true');
}

/**
 * A question before something that cannot be taken back.
 * @param {object} parts
 * @param {string} parts.title
 * @param {string[]} parts.lead
 * @param {any} [parts.more]
 * @param {string} parts.yes
 * @param {() => Promise<void>} parts.act
 */
export function askFirst({ title, lead, more, yes, act }) {
  const button = h('button.danger', { type: 'button' }, yes);
  button.addEventListener('click', async () => {
    button.disabled = true;
    try {
      await act();
      dialog.close();
    } catch (error) {
      dialog.close();
      tell(/** @type {Error} */ (error).message, 'bad');
    }
  });
  const dialog = openDialog({
    title,
    body: h('div', null, lead.map((text) => h('p', null, text)), more, h('footer', null, h('button', { type: 'button', autofocus: true, onclick: () => dialog.close() }, texts.card.ask.no), button)),
    kind: 'question',
  });
}

/**
 * A secret that is shown now and never again.
 * @param {string} title
 * @param {string} secret
 * @param {...any} more
 */
export function showOnce(title, secret, ...more) {
  const dialog = openDialog({
    title,
    body: h(
      'div',
      null,
      note('warn', texts.once.lead),
      copyable(secret, texts.once.label),
      more,
      h('footer', null, h('button.primary', { type: 'button', onclick: () => dialog.close() }, texts.once.done)),
    ),
  });
}
