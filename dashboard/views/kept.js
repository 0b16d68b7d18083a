// The assistants that Hookswitch keeps at Vapi: one for each role, with what differs there.

/** @import * as Api from '../types/api.js' */

import { h } from '../lib/dom.js';
import { bodyOf, formOf, TONES } from '../lib/kept.js';
import { href } from '../lib/page.js';
import { askFirst, askForm } from '../parts/ask.js';
import { badge, copyable, fillFrom, note, refill, tell, time } from '../parts/bits.js';
import texts from '../texts.js';

const READ_EVERY_MS = 5_000;
/** @type {Api.AssistantRole[]} */
const ROLES = ['inbound', 'outbound'];

class KeptAssistants extends HTMLElement {
  /** @type {import('../app.js').Context} */
  context = /** @type {any} */ (null);
  drawn = '';
  /** The webhook URLs by the ids of their endpoints. @type {Map<string, string>} */
  urls = new Map();

  connectedCallback() {
    this.load();
    this.unwatch = this.context.api.live.watch([], () => this.refresh(), READ_EVERY_MS);
  }

  disconnectedCallback() {
    this.unwatch?.();
  }

  load() {
    return fillFrom(this, this, async () => this.sheets(await this.read()));
  }

  /** @returns {Promise<Api.ManagedAssistantView[]>} */
  async read() {
    const { api } = this.context;
    const { data } = /** @type {Api.ManagedAssistants} */ (await api.get('/api/managed-assistants'));
    for (const { endpoint_id } of data) {
      if (this.urls.has(endpoint_id)) continue;
      const endpoint = await api.get(`/api/endpoints/${endpoint_id}`).catch(() => null);
      if (endpoint !== null) this.urls.set(endpoint_id, endpoint.url ?? endpoint.path);
    }
    return data;
  }

  async refresh() {
    const data = await this.read().catch(() => null);
    if (data !== null) refill(this, this, JSON.stringify(data) !== this.drawn, () => this.sheets(data));
  }

  /** @param {Api.ManagedAssistantView[]} data */
  sheets(data) {
    this.drawn = JSON.stringify(data);
    return [h('div.cards', null, ROLES.map((role) => this.sheet(role, data.find((row) => row.role === role) ?? null)))];
  }

  /** @param {Api.AssistantRole} role @param {Api.ManagedAssistantView | null} row */
  sheet(role, row) {
    const words = texts.kept;
    const mayManage = this.context.session.can('manage');
    const header = (/** @type {any} */ more) => h('header', null, h('h3', null, words.roles[role]), more);
    if (row === null) {
      return h(
        'section.sheet',
        { 'data-kept': role, 'data-state': 'none' },
        header(badge('quiet', words.none)),
        h('p.quiet', null, words.noneYet),
        mayManage && h('footer.row', null, h('button', { type: 'button', 'data-key': `kept-${role}-make`, 'data-do': 'make', onclick: () => this.edit(role, null) }, words.make)),
      );
    }
    const url = this.urls.get(row.endpoint_id);
    return h(
      'section.sheet',
      { 'data-kept': role, 'data-state': row.state },
      header(badge(TONES[row.state] ?? 'quiet', words.states[row.state] ?? row.state, row.state)),
      row.error && note('bad', h('p', null, row.error)),
      row.drift.length > 0 && note('warn', h('p', null, words.drift), h('ul', null, row.drift.map((field) => h('li', null, h('code', null, field))))),
      h(
        'dl',
        null,
        fact(words.facts.name, row.name),
        fact(words.facts.id, row.assistant_id ? h('code', null, row.assistant_id) : words.noId),
        fact(words.facts.url, url ? copyable(url, words.facts.url) : h('a', { href: href('endpoints') }, row.endpoint_id)),
        row.checked_at && fact(words.facts.checked, time(row.checked_at)),
      ),
      h('details', null, h('summary', null, words.wanted), h('pre', { tabindex: '0' }, h('code', null, JSON.stringify(row.assistant, null, 2)))),
      mayManage &&
        h(
          'footer.row',
          null,
          h('button', { type: 'button', 'data-key': `kept-${role}-edit`, 'data-do': 'edit', onclick: () => this.edit(role, row) }, row.drift.length > 0 ? words.changeBack : words.change),
          h('button', { type: 'button', 'data-key': `kept-${role}-delete`, 'data-do': 'delete', onclick: () => this.askDelete(role, row) }, words.delete),
        ),
    );
  }

  /** @param {Api.AssistantRole} role @param {Api.ManagedAssistantView | null} row */
  edit(role, row) {
    const words = texts.kept;
    const form = formOf(row === null ? null : { name: row.name, assistant: row.assistant });
    askForm({
      title: row === null ? words.makeTitle(words.roles[role]) : words.changeTitle(row.name),
      lead: row === null ? words.makeLead : words.changeLead,
      button: row === null ? words.make : texts.form.save,
      fields: [
        { name: 'name', label: words.fields.name, value: form.name, hint: words.hints.name },
        { name: 'first', label: words.fields.first, value: form.first, optional: true, hint: words.hints.first },
        { name: 'instructions', label: words.fields.instructions, value: form.instructions, optional: true, multiline: true, hint: words.hints.instructions },
        { name: 'provider', label: words.fields.provider, value: form.provider, optional: true },
        { name: 'model', label: words.fields.model, value: form.model, optional: true },
        { name: 'more', label: words.fields.more, value: form.more, optional: true, multiline: true, hint: words.hints.more },
      ],
      send: async (values) => {
        const made = bodyOf(/** @type {any} */ (values));
        if ('problem' in made) throw Object.assign(new Error(), { errors: [{ field: made.field, problem: words.problems[made.problem] }] });
        try {
          await this.context.api.put(`/api/assistants/${role}`, made.body, { etag: row?.etag });
        } catch (error) {
          // The API names Vapi's own fields: they stand in the last field.
          for (const each of /** @type {any} */ (error).errors ?? []) if (each.field.startsWith('assistant')) Object.assign(each, { field: 'more', problem: words.inField(each.field.split('.').slice(1).join('.'), each.problem) });
          throw error;
        }
        tell(words.saved);
        this.load();
      },
    });
  }

  /** @param {Api.AssistantRole} role @param {Api.ManagedAssistantView} row */
  askDelete(role, row) {
    const words = texts.kept;
    askFirst({
      title: words.askDelete(row.name),
      lead: words.deleteLead,
      yes: words.deleteYes,
      act: async () => {
        await this.context.api.delete(`/api/managed-assistants/${role}`, { etag: row.etag });
        tell(words.deleted);
        this.load();
      },
    });
  }
}
customElements.define('kept-assistants', KeptAssistants);

/** @param {string} name @param {any} value */
function fact(name, value) {
  return [h('dt', null, name), h('dd', null, value)];
}

/** @param {import('../app.js').Context} context */
export function keptAssistants(context) {
  return Object.assign(h('kept-assistants'), { context });
}
