// Pauses: what no attempt begins for. For operators.

/** @import * as Api from '../types/api.js' */

import { h, replace } from '../lib/dom.js';
import { number } from '../lib/format.js';
import { keyOf, targetOf } from '../lib/pauses.js';
import { askFirst, askForm } from '../parts/ask.js';
import { empty, fillFrom, heading, refill, tell, time } from '../parts/bits.js';
import { scopeFields } from '../parts/scope.js';
import texts from '../texts.js';

const READ_EVERY_MS = 5_000;

class PausesView extends HTMLElement {
  /** @type {import('../app.js').Context} */
  context = /** @type {any} */ (null);
  drawn = '';

  connectedCallback() {
    const words = texts.pauses;
    this.list = h('div');
    replace(this, heading(texts.pages.pauses, words.lead, h('button', { type: 'button', 'data-key': 'pause-add', onclick: () => this.ask() }, words.add)), this.list);
    this.load();
    this.unwatch = this.context.api.live.watch([], () => this.refresh(), READ_EVERY_MS);
  }

  disconnectedCallback() {
    this.unwatch?.();
  }

  load() {
    const to = /** @type {Element} */ (this.list);
    return fillFrom(to, to, async () => this.rows(await this.context.api.get('/operator/pauses')));
  }

  /** Another operator may have paused or lifted something. */
  async refresh() {
    const to = /** @type {Element} */ (this.list);
    const view = await this.context.api.get('/operator/pauses').catch(() => null);
    if (view !== null) refill(to, to, JSON.stringify(view) !== this.drawn, () => this.rows(view));
  }

  /** @param {Api.PausesView} view */
  rows(view) {
    this.drawn = JSON.stringify(view);
    const words = texts.pauses;
    if (view.pauses.length === 0) return [empty(words.none, words.noneYet)];
    const { columns } = words;
    const cell = (/** @type {string} */ label, /** @type {any} */ value) => h('td', { 'data-label': label }, h('div', null, value));
    return [
      h(
        'table',
        { 'aria-label': texts.pages.pauses },
        h('thead', null, h('tr', null, Object.values(columns).map((label) => h('th', { scope: 'col' }, label)))),
        h(
          'tbody',
          null,
          view.pauses.map((pause) =>
            h(
              'tr',
              { 'data-pause': keyOf(pause) },
              cell(columns.what, named(pause)),
              cell(columns.reason, pause.reason),
              cell(columns.since, time(pause.since)),
              cell(columns.by, pause.actor),
              cell(columns.do, h('button.small', { type: 'button', 'data-do': 'lift', 'data-key': `lift-${keyOf(pause)}`, onclick: () => this.lift(pause) }, words.lift)),
            ),
          ),
        ),
      ),
    ];
  }

  ask() {
    const words = texts.pauses;
    askForm({
      title: words.title,
      lead: words.formLead,
      button: words.yes,
      fields: [...scopeFields(words.scopes), { name: 'reason', label: words.columns.reason, hint: words.reasonHint }],
      send: async (values) => {
        const made = await this.context.api.post('/operator/pause', { ...targetOf(/** @type {any} */ (values)), reason: values.reason });
        tell(made.is_new ? words.paused : words.already);
        this.load();
      },
    });
  }

  /** @param {Api.PauseView} pause */
  lift(pause) {
    const words = texts.pauses;
    askFirst({
      title: words.askLift,
      lead: [words.liftLead, pause.reason],
      yes: words.lift,
      act: async () => {
        const { released } = await this.context.api.post('/operator/resume', targetOf(pause));
        tell(released > 0 ? words.liftedWith(number(released)) : words.lifted);
        this.load();
      },
    });
  }
}
customElements.define('pauses-view', PausesView);

/** @param {Api.PauseView} pause */
function named({ scope, org_id, provider, rule_id }) {
  const words = texts.pauses.scopes;
  switch (scope) {
    case 'org':
      return [words.org, ' ', h('code', null, org_id)];
    case 'provider':
      return [words.provider, ' ', texts.providers[provider ?? ''] ?? provider];
    case 'rule':
      return [words.rule, ' ', h('code', null, rule_id)];
    default:
      return words.all;
  }
}

/** @param {import('../app.js').Context} context */
export function view(context) {
  return Object.assign(h('pauses-view'), { context });
}
