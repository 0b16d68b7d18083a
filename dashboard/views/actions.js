// Actions: what was asked of providers, what came of it, and what a person can do about it.

/** @import * as Api from '../types/api.js' */

import { h, replace } from '../lib/dom.js';
import { requestOf } from '../lib/bulk.js';
import { possible, STATES, tone, word } from '../lib/outcomes.js';
import { href } from '../lib/page.js';
import { badge, empty, fillFrom, heading, liveState, note, tell, time } from '../parts/bits.js';
import { openDialog } from '../parts/dialog.js';
import { filterBar, PERIOD } from '../parts/filters.js';
import { pagedList } from '../parts/paged.js';
import texts from '../texts.js';

const PROVIDERS = ['vapi', 'twilio', 'google_calendar', 'resend', 'elevenlabs', 'http'];

/** The state of an action with its cause. @param {Api.ActionView} action */
export function stateOf(action) {
  if (action.state === 'waiting' && action.cause === 'quiet_hours') return [badge('quiet', texts.actions.quiet, action.state), h('span.hint', null, ' ', time(action.due_at))];
  const cause = action.cause && action.state !== 'succeeded' ? (texts.causes[action.cause] ?? action.cause) : null;
  const delivery = action.delivery?.status ? texts.actions.delivery(action.delivery.status) : null;
  return [badge(tone(action.state), word(action.state), action.state), cause && h('span.hint', null, ' ', cause), delivery && h('span.hint', null, ' ', delivery)];
}

/**
 * The buttons of an action.
 * @param {import('../app.js').Context} context
 * @param {Api.ActionView} action
 * @param {(changed: any) => void} done
 */
export function actionButtons({ api, session }, action, done) {
  if (!session.can('retry')) return null;
  /** @param {string} verb @param {any} body @param {HTMLButtonElement} button */
  const act = async (verb, body, button) => {
    button.disabled = true;
    try {
      const changed = await api.post(`/api/actions/${action.id}/${verb}`, body);
      tell(texts.actions.did[verb]);
      done(changed);
    } catch (error) {
      button.disabled = false;
      tell(/** @type {Error} */ (error).message, 'bad');
    }
  };
  const can = possible(action);
  const button = (/** @type {string} */ key, /** @type {(button: HTMLButtonElement) => void} */ pressed) => {
    const element = h('button.small', { type: 'button', 'data-key': `${action.id}-${key}`, 'data-do': key }, texts.actions.do[key]);
    element.addEventListener('click', () => pressed(element));
    return element;
  };
  return can.length > 0 && h(
    'div.row',
    null,
    can.includes('retry') && button('retry', (element) => act('retry', undefined, element)),
    can.includes('cancel') && button('cancel', (element) => act('cancel', undefined, element)),
    can.includes('resolve') && button('resolve', (element) => askOutcome((outcome) => act('resolve', { outcome }, element))),
  );
}

/** Nobody knows whether it went out: the person says. @param {(outcome: string) => void} chosen */
function askOutcome(chosen) {
  const choose = (/** @type {string} */ outcome) => () => {
    dialog.close();
    chosen(outcome);
  };
  const dialog = openDialog({
    title: texts.actions.resolve.title,
    body: h(
      'div',
      null,
      h('p', null, texts.actions.resolve.lead),
      h(
        'footer',
        null,
        h('button', { type: 'button', onclick: () => dialog.close() }, texts.bits.cancel),
        h('button', { type: 'button', 'data-do': 'sent', onclick: choose('sent') }, texts.actions.resolve.sent),
        h('button.danger', { type: 'button', 'data-do': 'resend', onclick: choose('resend') }, texts.actions.resolve.resend),
      ),
    ),
  });
}

class ActionsView extends HTMLElement {
  /** @type {import('../app.js').Context} */
  context = /** @type {any} */ (null);
  query = new URLSearchParams();
  /** The filters that the buttons for all of them stand for. */
  bulkShown = '';
  /** The rules to filter by, once they are known. @type {[string, string][]} */
  rules = [];

  connectedCallback() {
    this.list = pagedList({
      api: this.context.api,
      path: '/api/actions',
      lists: ['actions'],
      label: texts.pages.actions,
      query: Object.fromEntries(this.query),
      none: () => empty(this.query.size > 0 ? texts.lists.noMatch : texts.actions.none, this.query.size > 0 ? null : texts.actions.noneYet),
      columns: [
        { label: texts.actions.columns.when, cell: (/** @type {Api.ActionView} */ row) => time(row.created_at) },
        { label: texts.actions.columns.what, cell: (/** @type {Api.ActionView} */ row) => h('a', { href: href('actions', row.id) }, texts.actions.kinds[row.action] ?? row.action) },
        { label: texts.actions.columns.rule, cell: (/** @type {Api.ActionView} */ row) => row.rule_name },
        { label: texts.actions.columns.state, cell: stateOf },
        { label: texts.actions.columns.tries, cell: (/** @type {Api.ActionView} */ row) => row.attempts },
        { label: texts.actions.columns.do, cell: (/** @type {Api.ActionView} */ row) => actionButtons(this.context, row, () => this.list?.refresh()) },
      ],
    });
    this.bar = h('div');
    this.bulk = h('div');
    this.list.read_ = () => this.showBulk();
    replace(this, heading(texts.pages.actions, texts.actions.lead, liveState(this.context.api.live)), this.bar, this.bulk, this.list);
    this.filters();
    this.suggest();
  }

  async suggest() {
    const answer = await this.context.api.get('/api/rules', { limit: 200 }).catch(() => ({ data: [] }));
    this.rules = answer.data.map((/** @type {Api.RuleView} */ rule) => [rule.id, rule.name]);
    const isTouched = /** @type {Element} */ (this.bar).contains(document.activeElement);
    if (this.isConnected && !isTouched) this.filters();
  }

  /** Where one state is looked at, all of it can be tried again or cancelled: after its plan. */
  showBulk() {
    const words = texts.jobs;
    const hasSeveral = (this.list?.rows.length ?? 0) > 1;
    const verbs = /** @type {('retry' | 'cancel')[]} */ (['retry', 'cancel']).filter((verb) => requestOf(verb, this.query) !== null);
    const isShown = this.context.session.can('retry') && hasSeveral && verbs.length > 0;
    const key = isShown ? this.query.toString() : '';
    if (key === this.bulkShown) return;
    this.bulkShown = key;
    const button = (/** @type {'retry' | 'cancel'} */ verb) =>
      h('button', { type: 'button', 'data-key': `bulk-${verb}`, onclick: (/** @type {any} */ event) => this.bulkJob(verb, event.currentTarget) }, words[verb].button);
    replace(/** @type {Element} */ (this.bulk), isShown && h('div.row', null, verbs.map(button)));
  }

  /** @param {'retry' | 'cancel'} verb @param {HTMLButtonElement} button */
  async bulkJob(verb, button) {
    button.disabled = true;
    try {
      const { beginJob } = await import('./jobs.js');
      await beginJob(this.context.api, verb, requestOf(verb, this.query) ?? {});
    } catch (error) {
      tell(/** @type {Error} */ (error).message, 'bad');
    } finally {
      button.disabled = false;
    }
  }

  filters() {
    replace(
      /** @type {Element} */ (this.bar),
      filterBar('actions', this.query, [
        { name: 'state', label: texts.actions.columns.state, isMany: true, options: STATES.map((state) => [state, word(state)]) },
        { name: 'provider', label: texts.actions.provider, options: PROVIDERS.map((each) => [each, texts.providers[each] ?? each]) },
        { name: 'rule_id', label: texts.actions.columns.rule, options: this.rules },
        { name: 'cause', label: texts.actions.cause, options: Object.entries(texts.causes) },
        ...PERIOD,
      ]),
    );
  }

  /** Another filter of the same page. @param {import('../lib/page.js').Place} place */
  placeChanged(place) {
    this.query = place.query;
    this.filters();
    this.showBulk();
    this.list?.ask(Object.fromEntries(place.query));
  }
}
customElements.define('actions-view', ActionsView);

class ActionView extends HTMLElement {
  /** @type {import('../app.js').Context} */
  context = /** @type {any} */ (null);
  action = '';

  connectedCallback() {
    this.load();
  }

  load() {
    return fillFrom(this, this, async () => {
      const action = await this.context.api.get(`/api/actions/${encodeURIComponent(this.action)}`);
      return [
        heading(texts.actions.kinds[action.action] ?? action.action, null, badge(tone(action.state), word(action.state), action.state)),
        h('p', null, h('a', { href: href('events', action.event_id) }, texts.actions.toEvent)),
        actionSheet(this.context, action, () => this.load()),
      ];
    });
  }
}
customElements.define('action-view', ActionView);

/**
 * Everything of one action: its request, its attempts with the provider's answers, its delivery.
 * @param {import('../app.js').Context} context
 * @param {Api.ActionDetail} action
 * @param {() => void} changed
 */
export function actionSheet(context, action, changed) {
  const words = texts.actions;
  return h(
    'section.sheet',
    { 'data-action': action.id },
    h('header', null, h('h3', null, h('a', { href: href('actions', action.id) }, words.kinds[action.action] ?? action.action)), h('span', null, stateOf(action))),
    h('p.quiet', null, words.byRule, ' ', h('a', { href: href('rules', action.rule_id) }, action.rule_name), action.series > 0 && `, ${texts.events.replay.series(action.series)}`),
    action.detail && note(tone(action.state) === 'good' ? 'quiet' : /** @type {any} */ (tone(action.state)), h('p', null, action.detail)),
    h(
      'dl',
      null,
      fact(words.facts.created, time(action.created_at)),
      action.due_at && fact(words.facts.due, time(action.due_at)),
      action.state !== 'succeeded' && fact(words.facts.expires, time(action.expires_at)),
      action.provider_ref && fact(words.facts.ref, h('code', null, action.provider_ref)),
      action.delivery && fact(words.facts.delivery, [words.delivery(action.delivery.status), ' ', time(action.delivery.at), action.delivery.detail && ` ${action.delivery.detail}`]),
    ),
    actionButtons(context, action, changed),
    (action.attempts_made ?? []).length > 0 && [
      h('h4', null, words.attempts),
      h(
        'ol.attempts',
        null,
        action.attempts_made.map((/** @type {Api.AttemptView} */ attempt) =>
          h(
            'li',
            null,
            time(attempt.started_at),
            ': ',
            attempt.look_up ? words.lookUp : words.try,
            attempt.outcome ? [' → ', word(attempt.outcome)] : [' ', words.open],
            attempt.cause && attempt.cause !== 'accepted' && ` · ${texts.causes[attempt.cause] ?? attempt.cause}`,
            attempt.http_status && ` · HTTP ${attempt.http_status}`,
            attempt.provider_code && ` · ${texts.card.providerCode(attempt.provider_code)}`,
            attempt.detail && [' · ', h('q', null, attempt.detail)],
          ),
        ),
      ),
    ],
    action.request && h('details', null, h('summary', null, words.request), h('pre', { tabindex: '0' }, h('code', null, JSON.stringify(action.request, null, 2)))),
  );
}

/** @param {string} name @param {any} value */
function fact(name, value) {
  return [h('dt', null, name), h('dd', null, value)];
}

/** @param {import('../app.js').Context} context @param {import('../lib/page.js').Place} place */
export function view(context, place) {
  if (place.id !== null) return Object.assign(h('action-view'), { context, action: place.id });
  return Object.assign(h('actions-view'), { context, query: place.query });
}
