// Events: the live list, and the whole story of one on one page.

/** @import * as Api from '../types/api.js' */

import { h, replace } from '../lib/dom.js';
import { bytes } from '../lib/format.js';
import { href } from '../lib/page.js';
import { byWeight, known, tried } from '../lib/verdict.js';
import { outcomes, outcomesFrom, secretOf, tone, word } from '../lib/outcomes.js';
import { askForm } from '../parts/ask.js';
import { badge, copyable, empty, fillFrom, heading, liveState, note, tell, time } from '../parts/bits.js';
import { filterBar, PERIOD } from '../parts/filters.js';
import { pagedList } from '../parts/paged.js';
import { actionSheet } from './actions.js';
import texts from '../texts.js';

const SOURCES = ['vapi', 'twilio', 'elevenlabs', 'resend', 'google_calendar', 'standard'];

/** A worker plans a replayed event within this time, where nothing stands in the way. */
const PLANNED_WITHIN_MS = 1_500;

/** What came of an event: a badge for each state of its actions. @param {Api.EventView} row @param {Record<string, number> | undefined} counts */
function outcomeOf(row, counts) {
  if (row.dead_reason) return badge('bad', texts.events.dead, 'dead');
  if (counts === undefined) return null;
  const all = outcomes(counts);
  if (all.length === 0) return h('span.quiet', null, texts.events.nothing);
  return all.map(({ state, count }) => [badge(tone(state), count > 1 ? `${count} × ${word(state)}` : word(state), state), ' ']);
}

class EventsView extends HTMLElement {
  /** @type {import('../app.js').Context} */
  context = /** @type {any} */ (null);
  query = new URLSearchParams();
  /** @type {ReturnType<typeof outcomesFrom>} */
  outcome = () => undefined;
  /** The types that there are, once they are known. @type {string[]} */
  types = [];
  /** The outcomes that are drawn now. */
  known = '';

  /** Where the API does not say what came of its events, the newest actions do. @param {Api.EventView[]} rows */
  async join(rows) {
    if (rows.every((row) => row.actions !== undefined)) return;
    try {
      const { data, next_cursor } = await this.context.api.get('/api/actions', { limit: 200 });
      this.outcome = outcomesFrom(data, next_cursor === null);
      const list = this.list;
      if (list === undefined || list.rows.length === 0) return;
      // A row is drawn again only where its outcome differs.
      const known = JSON.stringify(list.rows.map((row) => this.outcome(row, Date.now()) ?? null));
      if (known === this.known) return;
      this.known = known;
      list.redraw();
    } catch {
      // The list itself says that nothing can be read.
    }
  }

  connectedCallback() {
    const words = texts.events.columns;
    this.list = pagedList({
      api: this.context.api,
      path: '/api/events',
      // The outcome of an event is that of its actions.
      lists: ['events', 'actions'],
      label: texts.pages.events,
      query: Object.fromEntries(this.query),
      none: () =>
        this.query.size > 0
          ? empty(texts.lists.noMatch, null)
          : empty(texts.events.none, texts.events.noneYet, h('a.button', { href: href('endpoints') }, texts.events.toEndpoints)),
      columns: [
        { label: words.when, cell: (/** @type {Api.EventView} */ row) => time(row.received_at) },
        { label: words.type, cell: (/** @type {Api.EventView} */ row) => h('a', { href: href('events', row.id) }, row.type) },
        { label: words.outcome, cell: (/** @type {Api.EventView} */ row) => outcomeOf(row, row.actions ?? this.outcome(row, Date.now())) },
        { label: words.subject, cell: (/** @type {Api.EventView} */ row) => h('a.mono', { href: href('events', null, { subject: row.subject }), title: texts.events.sameSubject }, row.subject) },
      ],
    });
    this.list.read_ = (answer) => this.join(answer.data);
    this.bar = h('div');
    replace(this, heading(texts.pages.events, texts.events.lead, liveState(this.context.api.live)), this.bar, this.list);
    this.filters();
    this.suggest();
  }

  /** The types of events to choose from. Without them the field takes any text. */
  async suggest() {
    const catalog = /** @type {Api.CatalogView | null} */ (await this.context.api.get('/api/catalog').catch(() => null));
    this.types = (catalog?.sources ?? []).flatMap((source) => source.event_types.map((each) => each.type));
    const isTouched = /** @type {Element} */ (this.bar).contains(document.activeElement);
    if (this.isConnected && !isTouched) this.filters();
  }

  filters() {
    const words = texts.events.columns;
    replace(
      /** @type {Element} */ (this.bar),
      filterBar('events', this.query, [
        { name: 'source', label: words.source, options: SOURCES.map((each) => [each, texts.providers[each] ?? each]) },
        { name: 'type', label: words.type, placeholder: 'vapi.end-of-call-report', suggestions: this.types },
        { name: 'subject', label: words.subject },
        ...PERIOD,
      ]),
    );
  }

  /** @param {import('../lib/page.js').Place} place */
  placeChanged(place) {
    this.query = place.query;
    this.filters();
    this.list?.ask(Object.fromEntries(place.query));
  }
}
customElements.define('events-view', EventsView);

class EventView extends HTMLElement {
  /** @type {import('../app.js').Context} */
  context = /** @type {any} */ (null);
  event = '';

  connectedCallback() {
    this.load();
  }

  load() {
    return fillFrom(this, this, async () => {
      const { api } = this.context;
      const event = await api.get(`/api/events/${encodeURIComponent(this.event)}`);
      const actions = await Promise.all(event.actions.map((/** @type {any} */ each) => api.get(`/api/actions/${each.id}`)));
      return this.story(event, actions, await this.verifier(event));
    });
  }

  replay() {
    const words = texts.events.replay;
    askForm({
      title: words.title,
      lead: words.lead,
      button: words.button,
      fields: [{ name: 'force', label: words.rules, options: [['no', words.unsuccessful], ['yes', words.all]], value: 'no', hint: words.hint }],
      send: async ({ force }, key) => {
        await this.context.api.post(`/api/events/${encodeURIComponent(this.event)}/replay`, { force: force === 'yes' }, { key });
        tell(words.done);
        setTimeout(() => this.isConnected && this.load(), PLANNED_WITHIN_MS);
      },
    });
  }

  /** The secret that verified the event, in words, where the API says it. @param {any} event @returns {Promise<string | null>} */
  async verifier({ secret_id: id }) {
    if (!id) return null;
    const { api } = this.context;
    const none = () => ({ data: [], integrations: [] });
    const [endpoints, status] = await Promise.all([api.get('/api/endpoints', { limit: 200 }).catch(none), api.get('/api/integrations/status').catch(none)]);
    const found = secretOf(id, endpoints.data, status.integrations);
    if (found === null) return id;
    return texts.events.secretOf(found.isProvider ? (texts.providers[found.owner] ?? found.owner) : found.owner, found.lastFour);
  }

  /** @param {Api.EventDetail} event @param {Api.ActionDetail[]} actions @param {string | null} verifier */
  story(event, actions, verifier) {
    const words = texts.events;
    return [
      heading(
        event.type,
        null,
        this.context.session.can('retry') &&
          event.can.includes('replay') &&
          h('button', { type: 'button', 'data-do': 'replay', onclick: () => this.replay() }, words.replay.button),
      ),
      event.dead_reason && note('bad', h('p', null, words.deadBecause, ' ', event.dead_reason)),
      h(
        'section.sheet',
        null,
        h('h2', null, words.received),
        h(
          'dl',
          null,
          fact(words.facts.received, time(event.received_at)),
          fact(words.facts.time, time(event.time)),
          fact(words.facts.subject, h('a', { href: href('events', null, { subject: event.subject }) }, event.subject)),
          fact(words.facts.path, h('code', null, event.path + (event.query ? `?${event.query}` : ''))),
          verifier && fact(words.facts.secret, verifier),
          event.endpoint_id && fact(words.facts.endpoint, h('a', { href: href('endpoints') }, event.endpoint_id)),
          fact(words.facts.size, `${bytes(event.body_bytes)}, ${event.content_type}`),
          fact(words.facts.id, copyable(event.id, words.facts.id)),
        ),
      ),
      h('h2', null, words.actions),
      actions.length === 0 && note('quiet', h('p', null, words.noActions)),
      actions.map((action) => actionSheet(this.context, action, () => this.load())),
      this.context.session.can('retry') &&
        event.body !== null &&
        Object.assign(h('event-rules'), { context: this.context, event, acted: new Set(actions.map((each) => each.rule_id)) }),
      h(
        'details.sheet',
        null,
        h('summary', null, words.body),
        event.body === null ? h('p', null, words.forgotten) : h('pre', { tabindex: '0' }, h('code', null, typeof event.body === 'string' ? event.body : JSON.stringify(event.body, null, 2))),
      ),
      event.headers.length > 0 &&
        h('details.sheet', null, h('summary', null, words.headers), h('dl', null, event.headers.map((/** @type {Api.HeaderView} */ each) => fact(each.name, each.value)))),
    ];
  }
}

/** A rule is tried on the event by itself only where there are so few. */
const TRIED_AT_ONCE_MAX = 20;

/** The verdict of each rule. One that is not known is tried on the event, which does nothing. */
class EventRules extends HTMLElement {
  /** @type {import('../app.js').Context} */
  context = /** @type {any} */ (null);
  event = /** @type {Api.EventDetail} */ (/** @type {unknown} */ (null));
  /** @type {Set<string>} */
  acted = new Set();

  connectedCallback() {
    this.to = h('div');
    replace(this, this.to);
    this.explain(false);
  }

  /** @param {boolean} isAsked by a person */
  explain(isAsked) {
    const to = /** @type {Element} */ (this.to);
    return fillFrom(this, to, async () => {
      const words = texts.events.rules;
      const { data, next_cursor } = await this.context.api.get('/api/rules', { limit: 200 });
      const rules = /** @type {Api.RuleView[]} */ (data);
      if (rules.length === 0) return [note('quiet', words.none)];
      const open = rules.filter((rule) => known(rule, this.event, this.acted) === null).length;
      if (!isAsked && open > TRIED_AT_ONCE_MAX) return [h('button', { type: 'button', onclick: () => this.explain(true) }, words.button)];
      const rows = await Promise.all(rules.map(async (rule) => ({ rule, verdict: known(rule, this.event, this.acted) ?? (await this.try(rule)) })));
      return [
        h('h2', null, words.title),
        h('p.quiet', null, words.lead),
        h('ul.verdicts', null, byWeight(rows).map(({ rule, verdict }) => verdictLine(rule, verdict))),
        next_cursor !== null && note('quiet', words.first),
      ];
    });
  }

  /** @param {Api.RuleView} rule */
  async try(rule) {
    try {
      return tried(rule, this.event, await this.context.api.post(`/api/rules/${rule.id}/dry-run`, { event_id: this.event.id }));
    } catch (error) {
      return tried(rule, this.event, { outcome: 'refused', detail: /** @type {Error} */ (error).message });
    }
  }
}
customElements.define('event-rules', EventRules);

/** @type {Record<string, string>} */
const VERDICT_TONES = { yes: 'good', no: 'quiet', broken: 'bad', open: 'warn' };

/** @param {Api.RuleView} rule @param {import('../lib/verdict.js').Verdict} verdict */
function verdictLine(rule, { said, why, field, cause, detail, isChanged }) {
  const words = texts.events.rules;
  const reason = why === 'not_matched' ? (words.fields[field ?? ''] ?? field) : words.why[why];
  return h(
    'li',
    { 'data-said': said },
    badge(VERDICT_TONES[said], words.said[said], said),
    ' ',
    h('a', { href: href('rules', rule.id) }, rule.name),
    reason && [': ', reason],
    cause && [' ', texts.causes[cause] ?? cause],
    detail && [' ', h('q', null, detail)],
    isChanged && why !== 'would_now' && h('span.hint', null, ' ', words.changed),
  );
}
customElements.define('event-view', EventView);

/** @param {string} name @param {any} value */
function fact(name, value) {
  return [h('dt', null, name), h('dd', null, value)];
}

/** @param {import('../app.js').Context} context @param {import('../lib/page.js').Place} place */
export function view(context, place) {
  if (place.id !== null) return Object.assign(h('event-view'), { context, event: place.id });
  return Object.assign(h('events-view'), { context, query: place.query });
}
