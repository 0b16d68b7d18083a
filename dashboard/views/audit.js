// The audit: who changed what, and when.

/** @import * as Api from '../types/api.js' */

import { h, replace } from '../lib/dom.js';
import { href } from '../lib/page.js';
import { empty, heading, time } from '../parts/bits.js';
import { filterBar, PERIOD } from '../parts/filters.js';
import { pagedList } from '../parts/paged.js';
import texts from '../texts.js';

/** @type {[string, string][]} */
const VERBS = Object.entries(texts.audit.verbs);
/** @type {[string, string][]} */
const INTEGRATIONS = ['vapi', 'twilio', 'google_calendar', 'resend', 'elevenlabs'].map((each) => [each, texts.providers[each] ?? each]);

class AuditView extends HTMLElement {
  /** @type {import('../app.js').Context} */
  context = /** @type {any} */ (null);
  query = new URLSearchParams();

  connectedCallback() {
    const words = texts.audit;
    this.list = pagedList({
      api: this.context.api,
      path: '/api/audit',
      lists: ['audit'],
      label: texts.pages.audit,
      query: Object.fromEntries(this.query),
      none: () => empty(this.query.size > 0 ? texts.lists.noMatch : words.none, null),
      columns: [
        { label: words.columns.when, cell: (/** @type {Api.AuditView} */ row) => time(row.at) },
        { label: words.columns.who, cell: (/** @type {Api.AuditView} */ row) => [h('a', { href: href('audit', null, { actor: row.actor }), title: words.sameActor }, row.actor), addressOf(row)] },
        { label: words.columns.what, cell: (/** @type {Api.AuditView} */ row) => `${words.verbs[row.verb] ?? row.verb} ${words.kinds[row.target_kind] ?? row.target_kind}` },
        { label: words.columns.which, cell: (/** @type {Api.AuditView} */ row) => h('code', null, row.target_id) },
        { label: words.columns.fields, cell: (/** @type {Api.AuditView} */ row) => change(row) },
      ],
    });
    this.bar = h('div');
    replace(this, heading(texts.pages.audit, words.lead), this.bar, this.list);
    this.filters();
  }

  filters() {
    replace(/** @type {Element} */ (this.bar), filterBar('audit', this.query, [{ name: 'actor', label: texts.audit.columns.who }, { name: 'verb', label: texts.audit.columns.what, options: VERBS }, { name: 'integration', label: texts.pages.integrations, options: INTEGRATIONS }, ...PERIOD]));
  }

  /** @param {import('../lib/page.js').Place} place */
  placeChanged(place) {
    this.query = place.query;
    this.filters();
    this.list?.ask(Object.fromEntries(place.query));
  }
}
customElements.define('audit-view', AuditView);

/** The address that a change came from, where the API says it. @param {any} row */
function addressOf({ address }) {
  return address && h('span.hint', null, ' ', texts.audit.from(address));
}

/** What changed: values where the API has them, else names of fields. @param {any} row */
function change(row) {
  if (row.before || row.after) {
    const names = [...new Set([...Object.keys(row.before ?? {}), ...Object.keys(row.after ?? {})])];
    return h('dl', null, names.map((name) => [h('dt', null, name), h('dd', null, `${shown(row.before?.[name])} → ${shown(row.after?.[name])}`)]));
  }
  return row.fields.join(', ');
}

/** @param {any} value */
function shown(value) {
  return value === undefined || value === null ? '–' : typeof value === 'string' ? value : JSON.stringify(value);
}

/** @param {import('../app.js').Context} context @param {import('../lib/page.js').Place} place */
export function view(context, place) {
  return Object.assign(h('audit-view'), { context, query: place.query });
}
