// Quarantine: events that the platform's own secret signed and that lead to no organisation, and
// their way to one. For operators. No content of a message is here: the API shows none.

/** @import * as Api from '../types/api.js' */

import { h, replace } from '../lib/dom.js';
import { askForm } from '../parts/ask.js';
import { empty, heading, tell, time } from '../parts/bits.js';
import { pagedList } from '../parts/paged.js';
import texts from '../texts.js';

class QuarantineView extends HTMLElement {
  /** @type {import('../app.js').Context} */
  context = /** @type {any} */ (null);

  connectedCallback() {
    const words = texts.quarantine.columns;
    this.list = pagedList({
      api: this.context.api,
      path: '/operator/quarantine',
      label: texts.pages.quarantine,
      query: {},
      none: () => empty(texts.quarantine.none, null),
      columns: [
        { label: words.received, cell: (/** @type {Api.QuarantineView} */ row) => time(row.received_at) },
        { label: words.source, cell: (/** @type {Api.QuarantineView} */ row) => texts.providers[row.source] ?? row.source },
        { label: words.type, cell: (/** @type {Api.QuarantineView} */ row) => row.type },
        { label: words.ids, cell: (/** @type {Api.QuarantineView} */ row) => named(row.ids) },
        { label: words.do, cell: (/** @type {Api.QuarantineView} */ row) => this.giveButton(row) },
      ],
    });
    replace(this, heading(texts.pages.quarantine, texts.quarantine.lead), this.list);
  }

  /** @param {Api.QuarantineView} event */
  giveButton(event) {
    const onclick = () => this.ask(event);
    return h('button.small', { type: 'button', 'data-do': 'give', 'data-key': `give-${event.id}`, onclick }, texts.quarantine.give);
  }

  /** @param {Api.QuarantineView} event */
  ask(event) {
    const words = texts.quarantine;
    askForm({
      title: words.ask,
      lead: words.askLead,
      button: words.give,
      fields: [{ name: 'org_id', label: texts.scopes.org, hint: words.orgHint }],
      send: async ({ org_id }) => {
        await this.context.api.post(`/operator/quarantine/${encodeURIComponent(event.id)}/replay`, { org_id });
        tell(words.done);
        this.list?.load();
      },
    });
  }
}
customElements.define('quarantine-view', QuarantineView);

/** The ids that an event names, each with its kind. @param {Api.ExternalId[]} ids */
function named(ids) {
  const words = texts.quarantine;
  if (ids.length === 0) return words.noIds;
  return ids.map(({ kind, value }) => h('p', null, words.kinds[kind] ?? kind, ' ', h('code', null, value)));
}

/** @param {import('../app.js').Context} context */
export function view(context) {
  return Object.assign(h('quarantine-view'), { context });
}
