// Signing in with a token.

import { h } from '../lib/dom.js';
import texts from '../texts.js';

/**
 * @param {import('../app.js').Context} context
 * @param {string | null} why
 */
export function signIn({ session, start }, why) {
  const said = h('p.field-error', { id: 'token-said', role: 'alert' });
  const field = h('textarea', {
    id: 'token',
    name: 'token',
    rows: 4,
    required: true,
    spellcheck: 'false',
    autocomplete: 'off',
    autocapitalize: 'none',
    'aria-describedby': 'token-hint token-said',
  });
  const button = h('button.primary', { type: 'submit' }, texts.signIn.button);
  const form = h(
    'form.sign-in',
    { novalidate: true },
    h('h1', { tabindex: '-1' }, texts.signIn.title),
    why ? h('p.note.warn', { role: 'status' }, why) : null,
    h('p', null, texts.signIn.lead),
    h('label', { for: 'token' }, texts.signIn.token),
    field,
    h('p.hint', { id: 'token-hint' }, texts.signIn.hint),
    said,
    button,
  );
  form.addEventListener('submit', async (/** @type {Event} */ event) => {
    event.preventDefault();
    said.textContent = '';
    if (field.value.trim() === '') {
      said.textContent = texts.signIn.missing;
      field.focus();
      return;
    }
    button.disabled = true;
    button.textContent = texts.signIn.working;
    try {
      await session.begin(field.value);
      field.value = '';
      start();
    } catch (error) {
      const { status, message } = /** @type {any} */ (error);
      said.textContent = status === 401 ? `${texts.signIn.refused} ${message}` : message;
      button.disabled = false;
      button.textContent = texts.signIn.button;
      field.focus();
    }
  });
  return form;
}
