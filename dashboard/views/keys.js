// The keys of the installation: which one seals, what stands under each, and how far a change is.
// For operators. Names of keys only: the API shows no key.

/** @import * as Api from '../types/api.js' */

import { h, replace } from '../lib/dom.js';
import { number } from '../lib/format.js';
import { roleOf, rotation } from '../lib/keys.js';
import { badge, empty, fillFrom, heading, note, refill, time } from '../parts/bits.js';
import texts from '../texts.js';

const READ_EVERY_MS = 5_000;
/** @type {Record<string, string>} */
const TONES = { primary: 'good', needed: 'warn', missing: 'bad', leave: 'quiet' };

class KeysView extends HTMLElement {
  /** @type {import('../app.js').Context} */
  context = /** @type {any} */ (null);
  drawn = '';

  connectedCallback() {
    this.body = h('div.parts');
    replace(this, heading(texts.pages.keys, texts.keys.lead), this.body);
    const to = this.body;
    fillFrom(this, to, async () => this.parts(await this.context.api.get('/operator/keys')));
    this.unwatch = this.context.api.live.watch([], () => this.refresh(), READ_EVERY_MS);
  }

  disconnectedCallback() {
    this.unwatch?.();
  }

  async refresh() {
    const view = await this.context.api.get('/operator/keys').catch(() => null);
    if (view !== null) refill(this, /** @type {Element} */ (this.body), JSON.stringify(view) !== this.drawn, () => this.parts(view));
  }

  /** @param {Api.KeysView} view */
  parts(view) {
    this.drawn = JSON.stringify(view);
    const words = texts.keys;
    if (view.keys.length === 0) return [empty(words.none, words.noneYet)];
    return [
      this.progress(view),
      view.set_aside.length > 0 &&
        note('bad', h('p', null, words.setAside(number(view.set_aside.length))), h('ul', null, view.set_aside.map((row) => h('li', null, h('code', null, row.org_id), ` ${row.version}: ${row.problem}`)))),
      table(
        words.keys,
        [words.columns.key, words.columns.role, words.columns.data, words.columns.events, words.columns.seals, words.columns.instances],
        view.keys.map((key) => {
          const role = roleOf(key, view.instances.length);
          return [h('code', null, key.key), badge(TONES[role], words.roles[role], role), number(key.data_keys), number(key.events), number(key.seals_max), `${number(key.instances)} / ${number(view.instances.length)}`];
        }),
      ),
      table(
        words.instances,
        [words.columns.instance, words.columns.roles, words.columns.sealsWith, words.columns.ring, words.columns.seen],
        view.instances.map((one) => [one.name, one.roles, h('code', null, one.seals_with), one.keys.map((key) => h('div', null, h('code', null, key))), time(one.seen_at)]),
      ),
    ];
  }

  /** @param {Api.KeysView} view */
  progress(view) {
    const words = texts.keys;
    const { state, total, done, left, events } = rotation(view);
    if (state === 'none') return note('warn', words.noPrimary);
    return h(
      'section.sheet',
      { 'data-rotation': state },
      h('h2', null, words.rotation[state]),
      h('p', null, words.primary, ' ', h('code', null, view.primary), view.since && [', ', words.since, ' ', time(view.since)]),
      total > 0 && h('progress', { max: total, value: done, 'aria-label': words.progress }, `${done}/${total}`),
      h('p', { role: 'status' }, words.counts(number(done), number(total))),
      left > 0 && h('p.quiet', null, words.goOn),
      events > 0 && h('p.quiet', null, words.events(number(events))),
    );
  }
}
customElements.define('keys-view', KeysView);

/** @param {string} label @param {string[]} columns @param {any[][]} rows */
function table(label, columns, rows) {
  return h(
    'section',
    null,
    h('h2', null, label),
    h(
      'table',
      { 'aria-label': label },
      h('thead', null, h('tr', null, columns.map((column) => h('th', { scope: 'col' }, column)))),
      h('tbody', null, rows.map((cells) => h('tr', null, cells.map((cell, at) => h('td', { 'data-label': columns[at] }, h('div', null, cell)))))),
    ),
  );
}

/** @param {import('../app.js').Context} context */
export function view(context) {
  return Object.assign(h('keys-view'), { context });
}
