// The editor of a rule as data: texts in fields to what is sent, and back; the fields of an event;
// where an error belongs.

/**
 * @typedef {import('../types/api.d.ts').ParameterView} Parameter
 * @typedef {object} Draft what the fields of the editor hold
 * @property {string} name
 * @property {string} source
 * @property {string} event_type
 * @property {string} when
 * @property {string} action
 * @property {Record<string, string>} parameters
 * @property {string} hours after which it is not begun any more; empty for the action's own
 * @property {string} quiet what its texts do in quiet hours: `wait` or `send`
 * @property {boolean} enabled
 */

/** @returns {Draft} */
export function emptyDraft() {
  return { name: '', source: 'vapi', event_type: '', when: '', action: 'twilio.send_sms', parameters: {}, hours: '', quiet: 'wait', enabled: true };
}

/** The fields for a rule as the API shows it. @param {Partial<import('../types/api.d.ts').RuleView>} rule @returns {Draft} */
export function draftOf(rule) {
  const parameters = Object.fromEntries(Object.entries(rule.parameters ?? {}).map(([name, value]) => [name, textOf(value)]));
  const seconds = rule.expires_after_seconds;
  return {
    name: rule.name ?? '',
    source: rule.source ?? 'vapi',
    event_type: rule.event_type ?? '',
    when: rule.when ?? '',
    action: rule.action ?? 'twilio.send_sms',
    parameters,
    hours: seconds === undefined || seconds === null ? '' : String(seconds / 3600),
    quiet: rule.ignores_quiet_hours ? 'send' : 'wait',
    enabled: rule.enabled !== false,
  };
}

/** A value as a field shows it: texts of a list stand on lines of their own. @param {any} value */
function textOf(value) {
  if (typeof value === 'string') return value;
  if (Array.isArray(value) && value.every((each) => typeof each === 'string')) return value.join('\n');
  return JSON.stringify(value, null, 2);
}

/**
 * What is sent for a draft. Parameters that the action does not have are left out, so that another
 * action can be chosen and chosen back.
 * @param {Draft} draft
 * @param {Parameter[]} parameters
 */
export function specOf(draft, parameters) {
  /** @type {Record<string, any>} */
  const values = {};
  for (const parameter of parameters) {
    const text = draft.parameters[parameter.name] ?? '';
    if (text.trim() !== '') values[parameter.name] = valueOf(text, parameter.type);
  }
  /** @type {Record<string, any>} */
  const spec = {
    name: draft.name.trim(),
    source: draft.source,
    event_type: draft.event_type.trim(),
    action: draft.action,
    parameters: values,
    enabled: draft.enabled,
  };
  if (draft.when.trim() !== '') spec.when = draft.when.trim();
  const hours = Number(draft.hours);
  if (draft.hours.trim() !== '' && Number.isFinite(hours)) spec.expires_after_seconds = Math.round(hours * 3600);
  if (draft.quiet === 'send' && waitsForQuietHours(draft.action)) spec.ignores_quiet_hours = true;
  return spec;
}

/** Whether actions of this kind wait for the end of quiet hours. @param {string | undefined} action */
export function waitsForQuietHours(action) {
  return action === 'twilio.send_sms';
}

/** @param {string} text @param {string} type */
function valueOf(text, type) {
  if (type.includes('list of texts')) {
    const lines = text.split('\n').map((line) => line.trim()).filter((line) => line !== '');
    return lines.length > 1 ? lines : (lines[0] ?? '');
  }
  if (type.includes('object')) {
    try {
      const value = JSON.parse(text);
      if (typeof value === 'object' && value !== null) return value;
    } catch {
      // A text with a template in it.
    }
  }
  return text;
}

/**
 * The fields of an event, as expressions name them, with what stands in them.
 * @param {any} value
 * @param {string} name
 * @param {number} [most]
 * @returns {{path: string, example: string}[]}
 */
export function pathsOf(value, name, most = 400) {
  /** @type {{path: string, example: string}[]} */
  const found = [];
  const walk = (/** @type {any} */ at, /** @type {string} */ path, /** @type {number} */ depth) => {
    if (found.length >= most || depth > 8) return;
    if (Array.isArray(at)) {
      if (at.length > 0) walk(at[0], `${path}[0]`, depth + 1);
    } else if (at !== null && typeof at === 'object') {
      for (const [key, each] of Object.entries(at)) walk(each, /^[A-Za-z_]\w*$/.test(key) ? `${path}.${key}` : `${path}[${JSON.stringify(key)}]`, depth + 1);
    } else {
      found.push({ path, example: String(at).slice(0, 60) });
    }
  };
  walk(value, name, 0);
  return found;
}

/**
 * The fields that a rule on this event can use.
 * @param {string} source
 * @param {any} body
 */
export function fieldsOf(source, body) {
  if (typeof body === 'string') return pathsOf(Object.fromEntries(new URLSearchParams(body)), 'params');
  if (source === 'vapi' && body?.message !== undefined) return pathsOf(body.message, 'message');
  return pathsOf(body, 'body');
}

/**
 * A text with a field put in the place of what is selected. Templates need braces, a condition does
 * not.
 * @param {{text: string, start: number, end: number}} at
 * @param {string} path
 * @param {boolean} isTemplate
 */
export function withField({ text, start, end }, path, isTemplate) {
  const before = text.slice(0, start);
  const isInside = before.lastIndexOf('{{') > before.lastIndexOf('}}');
  const inserted = isTemplate && !isInside ? `{{ ${path} }}` : path;
  return { text: before + inserted + text.slice(end), caret: start + inserted.length };
}

/**
 * Where each problem belongs: the name of a field of the editor, or '' for all.
 * @param {{field: string, problem: string}[]} errors
 * @returns {Record<string, string>}
 */
export function placed(errors) {
  /** @type {Record<string, string>} */
  const found = {};
  for (const { field, problem } of errors) {
    const name = field.replace(/^spec\./, '');
    const at = name.startsWith('parameters.') ? name.split(/[.[]/).slice(0, 2).join('.') : name.split('.')[0];
    const key = KNOWN.has(at) || at.startsWith('parameters.') ? at : '';
    found[key] = found[key] === undefined ? problem : `${found[key]}; ${problem}`;
  }
  return found;
}

const KNOWN = new Set(['name', 'source', 'event_type', 'when', 'action', 'expires_after_seconds', 'ignores_quiet_hours']);

/**
 * What a dry run says that would fail, as problems of fields.
 * @param {any} ran
 * @returns {{field: string, problem: string}[]}
 */
export function failures(ran) {
  if (Array.isArray(ran.errors) && ran.errors.length > 0) return ran.errors;
  const [, field, problem] = /^((?:parameters\.[\w.[\]]+)|when): (.*)$/s.exec(ran.detail ?? '') ?? [null, '', ran.detail ?? ran.cause];
  return [{ field, problem }];
}
