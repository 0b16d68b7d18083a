// Assistants and phone numbers: what leads an event to this organisation.

/** @import * as Api from '../types/api.js' */

import { h, replace } from '../lib/dom.js';
import { groupedNumber, plainNumber } from '../lib/phone.js';
import { askFirst, askForm } from '../parts/ask.js';
import { badge, empty, heading, note, time } from '../parts/bits.js';
import { pagedList } from '../parts/paged.js';
import { keptAssistants } from './kept.js';
import texts from '../texts.js';

class AssistantsView extends HTMLElement {
  /** @type {import('../app.js').Context} */
  context = /** @type {any} */ (null);

  connectedCallback() {
    const { api, session } = this.context;
    const words = texts.assistants;
    const mayManage = session.can('manage');
    const state = (/** @type {Api.AssistantView | Api.NumberView} */ row) => [
      badge(row.state === 'live' && row.usable ? 'good' : 'warn', words.states[row.state] ?? row.state),
      row.reason && h('span.hint', null, ' ', row.reason),
    ];
    this.assistants = pagedList({
      api,
      path: '/api/assistants',
      label: words.assistants,
      none: () => empty(words.noAssistants, words.noAssistantsYet),
      columns: [
        { label: words.columns.name, cell: (/** @type {Api.AssistantView} */ row) => [row.name ?? '–', ' ', h('code', null, row.assistant_id)] },
        { label: words.columns.role, cell: (/** @type {Api.AssistantView} */ row) => words.roles[row.role ?? 'null'] ?? row.role },
        { label: words.columns.state, cell: state },
        { label: words.columns.proven, cell: (/** @type {Api.AssistantView} */ row) => time(row.proven_at) },
        { label: words.columns.do, cell: (/** @type {Api.AssistantView} */ row) => mayManage && this.askRemove(`/api/assistants/${encodeURIComponent(row.assistant_id)}`, row.name ?? row.assistant_id, row.etag, () => this.assistants?.load()) },
      ],
    });
    this.numbers = pagedList({
      api,
      path: '/api/phone-numbers',
      label: words.numbers,
      none: () => empty(words.noNumbers, words.noNumbersYet),
      columns: [
        { label: words.columns.number, cell: (/** @type {Api.NumberView} */ row) => groupedNumber(row.number) },
        { label: words.columns.provider, cell: (/** @type {Api.NumberView} */ row) => texts.providers[row.provider] ?? row.provider },
        { label: words.columns.state, cell: state },
        { label: words.columns.proven, cell: (/** @type {Api.NumberView} */ row) => time(row.proven_at) },
        {
          label: words.columns.texts,
          cell: (/** @type {Api.NumberView} */ row) =>
            row.sms_read_at ? [words.texts[String(row.sms_enabled)], ' ', time(row.sms_read_at), h('span.hint', null, ' ', row.sms_hint)] : '–',
        },
        { label: words.columns.do, cell: (/** @type {Api.NumberView} */ row) => mayManage && this.askRemove(`/api/phone-numbers/${encodeURIComponent(row.number)}?provider=${row.provider}`, groupedNumber(row.number), row.etag, () => this.numbers?.load()) },
      ],
    });
    replace(
      this,
      heading(texts.pages.assistants, words.lead),
      note('quiet', words.proof),
      h('div.heading', null, h('h2', null, words.assistants), mayManage && h('button', { type: 'button', 'data-key': 'assistant-add', onclick: () => this.addAssistant() }, words.addAssistant)),
      this.assistants,
      h('h2', null, texts.kept.title),
      h('p.lead', null, texts.kept.lead),
      keptAssistants(this.context),
      h('div.heading', null, h('h2', null, words.numbers), mayManage && h('button', { type: 'button', 'data-key': 'number-add', onclick: () => this.addNumber() }, words.addNumber)),
      this.numbers,
    );
  }

  /** @param {string} path @param {string} name @param {string} etag @param {() => void} done */
  askRemove(path, name, etag, done) {
    const words = texts.assistants;
    return h(
      'button.small',
      {
        type: 'button',
        'aria-label': words.removeOf(name),
        onclick: () =>
          askFirst({
            title: words.askRemove(name),
            lead: [words.removeLead],
            yes: words.remove,
            act: async () => {
              await this.context.api.delete(path, { etag });
              done();
            },
          }),
      },
      words.remove,
    );
  }

  addAssistant() {
    const words = texts.assistants;
    askForm({
      title: words.addAssistant,
      lead: words.addAssistantLead,
      button: words.claim,
      fields: [
        { name: 'assistant_id', label: words.fields.assistant },
        { name: 'role', label: words.fields.role, options: [['inbound', words.roles.inbound], ['outbound', words.roles.outbound]], value: 'inbound' },
      ],
      send: async (values) => {
        await this.context.api.post('/api/assistants', values);
        this.assistants?.load();
      },
    });
  }

  addNumber() {
    const words = texts.assistants;
    askForm({
      title: words.addNumber,
      lead: words.addNumberLead,
      button: words.claim,
      fields: [
        { name: 'number', label: words.fields.number, type: 'tel', hint: texts.form.noCountry },
        { name: 'provider', label: words.columns.provider, options: [['twilio', texts.providers.twilio], ['vapi', texts.providers.vapi]], value: 'twilio' },
      ],
      send: async ({ number, provider }) => {
        await this.context.api.post('/api/phone-numbers', { number: plainNumber(number), provider });
        this.numbers?.load();
      },
    });
  }
}
customElements.define('assistants-view', AssistantsView);

/** @param {import('../app.js').Context} context */
export function view(context) {
  return Object.assign(h('assistants-view'), { context });
}
