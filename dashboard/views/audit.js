// The audit: who changed what, and when.

/** @import * as Api from '../types/api.js' */

import { h, replace } from '../lib/dom.js';
import { empty, heading, time } from '../parts/bits.js';
import { pagedList } from '../parts/paged.js';
import texts from '../texts.js';

class AuditView extends HTMLElement {
  /** @type {import('../app.js').Context} */
  context = /** @type {any} */ (null);

  connectedCallback() {
    const words = texts.audit;
    const list = pagedList({
      api: this.context.api,
      path: '/api/audit',
      label: texts.pages.audit,
      none: () => empty(words.none, null),
      columns: [
        { label: words.columns.when, cell: (/** @type {Api.AuditView} */ row) => time(row.at) },
        { label: words.columns.who, cell: (/** @type {Api.AuditView} */ row) => row.actor },
        { label: words.columns.what, cell: (/** @type {Api.AuditView} */ row) => `${words.verbs[row.verb] ?? row.verb} ${words.kinds[row.target_kind] ?? row.target_kind}` },
        { label: words.columns.which, cell: (/** @type {Api.AuditView} */ row) => h('code', null, row.target_id) },
        { label: words.columns.fields, cell: (/** @type {Api.AuditView} */ row) => change(row) },
      ],
    });
    replace(this, heading(texts.pages.audit, words.lead), list);
  }
}
customElements.define('audit-view', AuditView);

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

/** @param {import('../app.js').Context} context */
export function view(context) {
  return Object.assign(h('audit-view'), { context });
}
