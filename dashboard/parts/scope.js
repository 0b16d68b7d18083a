// The fields of a form that say what is meant: everything, an organisation, a provider, a rule.

import { SCOPES } from '../lib/pauses.js';
import texts from '../texts.js';

const PROVIDERS = ['vapi', 'twilio', 'google_calendar', 'resend', 'elevenlabs', 'http'];

/** @param {Record<string, string>} names of the scopes @returns {import('./ask.js').AskField[]} */
export function scopeFields(names) {
  const words = texts.scopes;
  const only = (/** @type {string} */ scope) => (/** @type {Record<string, string>} */ values) => values.scope === scope;
  return [
    { name: 'scope', label: words.label, options: SCOPES.map((scope) => [scope, names[scope]]), value: 'org' },
    { name: 'org_id', label: words.org, hint: words.orgHint, shown: only('org') },
    { name: 'provider', label: words.provider, options: PROVIDERS.map((each) => [each, texts.providers[each]]), shown: only('provider') },
    { name: 'rule_id', label: words.rule, hint: words.ruleHint, shown: only('rule') },
  ];
}
