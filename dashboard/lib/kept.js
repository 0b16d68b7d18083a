// An assistant that Hookswitch keeps at Vapi: between its fields in a form and Vapi's own. Pure.

/** @typedef {Record<string, any>} Assistant the fields of Vapi's assistant */
/** @typedef {{name: string, first: string, provider: string, model: string, instructions: string, more: string}} Form */

/** The form of what is wanted now. @param {{name: string, assistant: Assistant} | null} kept @returns {Form} */
export function formOf(kept) {
  if (kept === null) return { name: '', first: '', provider: 'openai', model: 'gpt-4o', instructions: '', more: '' };
  // A field that the form lacks stands in `more`, so that nothing is lost by saving.
  const more = structuredClone(kept.assistant);
  const form = { name: kept.name, first: '', provider: '', model: '', instructions: '', more: '' };
  if (isText(more.firstMessage)) {
    form.first = more.firstMessage;
    delete more.firstMessage;
  }
  if (isObject(more.model) && isText(more.model.provider) && isText(more.model.model)) {
    const { provider, model, messages, ...others } = more.model;
    const instructions = instructionsOf(messages);
    Object.assign(form, { provider, model, instructions: instructions ?? '' });
    if (instructions === null && messages !== undefined) others.messages = messages;
    if (Object.keys(others).length > 0) more.model = others;
    else delete more.model;
  }
  if (Object.keys(more).length > 0) form.more = JSON.stringify(more, null, 2);
  return form;
}

/**
 * The request for a form.
 * @param {Form} form
 * @returns {{body: {name: string, assistant: Assistant}} | {field: keyof Form, problem: 'json' | 'object' | 'both' | 'twice'}}
 * `both`: a model needs its provider and its name; `twice`: `more` says it too
 */
export function bodyOf({ name, first, provider, model, instructions, more }) {
  /** @type {any} */
  let assistant = {};
  try {
    if (more !== '') assistant = JSON.parse(more);
  } catch {
    return { field: 'more', problem: 'json' };
  }
  if (!isObject(assistant)) return { field: 'more', problem: 'object' };
  if (first !== '') {
    if ('firstMessage' in assistant) return { field: 'more', problem: 'twice' };
    assistant.firstMessage = first;
  }
  const own = { ...(provider !== '' && { provider }), ...(model !== '' && { model }), ...(instructions !== '' && { messages: [{ role: 'system', content: instructions }] }) };
  if (Object.keys(own).length > 0) {
    if (provider === '') return { field: 'provider', problem: 'both' };
    if (model === '') return { field: 'model', problem: 'both' };
    const other = assistant.model ?? {};
    if (!isObject(other) || Object.keys(own).some((key) => key in other)) return { field: 'more', problem: 'twice' };
    assistant.model = { ...own, ...other };
  }
  return { body: { name, assistant } };
}

/** The one system message, where there is no other. @param {any} messages @returns {string | null} */
function instructionsOf(messages) {
  if (!Array.isArray(messages) || messages.length !== 1) return null;
  const { role, content, ...rest } = isObject(messages[0]) ? messages[0] : {};
  return role === 'system' && isText(content) && Object.keys(rest).length === 0 ? content : null;
}

/** @param {any} value */
function isText(value) {
  return typeof value === 'string' && value !== '';
}

/** @param {any} value */
function isObject(value) {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

/** Tone of the badge of each state. @type {Record<string, string>} */
export const TONES = { in_step: 'good', drifted: 'warn', making: 'quiet', missing: 'bad' };
