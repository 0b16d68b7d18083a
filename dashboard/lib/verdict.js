// The verdict of each rule on an event, and its reason: pure.

/**
 * @typedef {Pick<import('../types/api.d.ts').RuleView, 'id' | 'name' | 'enabled' | 'source' | 'updated_at'>} Rule
 * @typedef {{outcome: string, field?: string, cause?: string, detail?: string}} DryRun
 * @typedef {object} Verdict
 * @property {'yes' | 'no' | 'broken' | 'open'} said `broken`: it would fail; `open`: nobody can tell
 * @property {'acted' | 'off' | 'not_matched' | 'failed' | 'would_now' | 'not_tried'} why
 * @property {string} [field] of `not_matched`: `source`, `event_type` or `when`
 * @property {string} [cause] of `failed`
 * @property {string} [detail]
 * @property {boolean} isChanged the rule was made or changed after the event came
 */

/**
 * The verdict that needs no question to the API: `null` where the rule has to be tried on the event.
 * @param {Rule} rule
 * @param {{source: string, received_at: string}} event
 * @param {Set<string>} acted the rules that have actions of this event
 * @returns {Verdict | null}
 */
export function known(rule, event, acted) {
  const isChanged = new Date(rule.updated_at).getTime() > new Date(event.received_at).getTime();
  if (acted.has(rule.id)) return { said: 'yes', why: 'acted', isChanged };
  if (!rule.enabled) return { said: 'no', why: 'off', isChanged };
  if (rule.source !== event.source) return { said: 'no', why: 'not_matched', field: 'source', isChanged };
  return null;
}

/**
 * The verdict of a try of the rule, as it stands today.
 * @param {Rule} rule
 * @param {{source: string, received_at: string}} event
 * @param {DryRun} ran
 * @returns {Verdict}
 */
export function tried(rule, event, { outcome, field, cause, detail }) {
  const isChanged = new Date(rule.updated_at).getTime() > new Date(event.received_at).getTime();
  switch (outcome) {
    case 'not_matched':
      return { said: 'no', why: 'not_matched', field, isChanged };
    case 'planned':
      return { said: 'open', why: 'would_now', isChanged };
    case 'failed':
      return { said: 'broken', why: 'failed', cause, detail, isChanged };
    default:
      return { said: 'open', why: 'not_tried', detail, isChanged };
  }
}

/**
 * Those that said yes first, then what is broken or open, then those that said no.
 * @template {{verdict: Verdict}} Row
 * @param {Row[]} rows
 */
export function byWeight(rows) {
  const order = ['yes', 'broken', 'open', 'no'];
  return [...rows].sort((a, b) => order.indexOf(a.verdict.said) - order.indexOf(b.verdict.said));
}
