// The integrations: a card for each provider, its form in a dialog, and what the API says of both.

import { card, model, next } from '../lib/card.js';
import { bodyOf } from '../lib/fields.js';
import { h, painted, replace } from '../lib/dom.js';
import { number } from '../lib/format.js';
import { href } from '../lib/page.js';
import { groupedNumber } from '../lib/phone.js';
import { badge, failure, heading, liveState, loading, note, tell, time } from '../parts/bits.js';
import texts from '../texts.js';

/**
 * @typedef {import('../lib/card.js').Card} Card
 * @typedef {{type: string, [more: string]: any}} Event_
 */

/** The first reads of this page. The document names them, so that they begin beside the scripts. */
export const READS = ['/api/providers', '/api/integrations/status'];

/**
 * The forms and their dialogs, once they are loaded: the first view does not wait for them.
 * @type {typeof import('../parts/credential-form.js') & typeof import('../parts/dialog.js') | null}
 */
let forms = null;

async function loadForms() {
  if (forms !== null) return forms;
  const [form, dialog] = await Promise.all([import('../parts/credential-form.js'), import('../parts/dialog.js')]);
  return (forms ??= { ...form, ...dialog });
}

/** One card. It draws a model, and tells which button was pressed. */
class IntegrationCard extends HTMLElement {
  /** @type {(name: string) => void} */
  press = () => {};
  /** What is drawn now. */
  drawn = '';

  /** @param {Card} state @param {{manage: boolean, connect: boolean}} may */
  show(state, may) {
    const shown = model(state, may);
    const drawn = JSON.stringify(shown);
    if (drawn === this.drawn) return;
    this.drawn = drawn;
    this.setAttribute('data-provider', state.form.provider);
    this.setAttribute('data-state', shown.state);
    this.toggleAttribute('aria-busy', shown.busy !== null);
    const { name, provider } = state.form;
    replace(
      this,
      h('header', null, h('h2', { id: `card-${provider}` }, name), badge(shown.tone, shown.badge, shown.state)),
      shown.purpose && h('p.quiet', null, shown.purpose),
      shown.said && said(shown.said, name),
      (shown.lead || shown.words || shown.cause || shown.advice || shown.missing.length > 0) &&
        h(
          `div.note.${shown.tone}`,
          null,
          shown.lead && h('p', null, shown.lead),
          shown.cause && h('p', null, shown.cause),
          shown.words && h('p', null, texts.card.providerSays(name), ' ', h('q', null, shown.words)),
          shown.missing.length > 0 && h('p', null, texts.card.cannot, ' ', shown.missing.join(', ')),
          shown.advice && h('p', null, shown.advice),
        ),
      shown.due && note('warn', shown.due),
      shown.unavailable && note('quiet', shown.unavailable),
      shown.held.map(({ state: held, count }) =>
        h('p.held', null, h('a', { href: href('actions', null, { state: held, provider }) }, texts.card.held(held, number(count)))),
      ),
      shown.problem && h('p.quiet', null, texts.card.lastProblem, ' ', time(shown.problem.at), ': ', shown.problem.detail ?? texts.causes[shown.problem.cause ?? ''] ?? shown.problem.cause),
      shown.facts.length > 0 &&
        h(
          'dl',
          null,
          shown.facts.map((fact) => [
            h('dt', null, texts.card.facts[fact.key]),
            h('dd', { 'data-fact': fact.key }, fact.time ? time(fact.time) : fact.key === 'number' ? groupedNumber(fact.text ?? '') : fact.text),
          ]),
        ),
      shown.buttons.length > 0 &&
        h(
          'footer',
          null,
          shown.buttons.map((each) =>
            h(
              `button${each.primary ? '.primary' : ''}`,
              {
                type: 'button',
                'data-key': `${provider}-${each.name}`,
                'data-do': each.name,
                'aria-describedby': `card-${provider}`,
                disabled: shown.busy !== null,
                onclick: () => this.press(each.name),
              },
              each.label,
            ),
          ),
        ),
    );
  }
}
customElements.define('integration-card', IntegrationCard);

/** @param {import('../lib/card.js').Said} what @param {string} name */
function said({ kind, text, provider, requestId, again }, name) {
  return h(
    `div.note.${kind}`,
    { role: kind === 'bad' ? 'alert' : 'status' },
    h('p', null, text),
    provider && h('p', null, texts.card.providerSays(name), ' ', h('q', null, provider)),
    again && h('p', null, texts.card.again, ' ', time(again)),
    requestId && h('p.quiet', null, texts.bits.requestId(requestId)),
  );
}

/** The page: holds the states of all cards, and speaks with the API. */
class IntegrationsDashboard extends HTMLElement {
  /** @type {import('../app.js').Context} */
  context = /** @type {any} */ (null);
  /** @type {URLSearchParams} */
  query = new URLSearchParams();
  /** @type {Map<string, Card>} */
  cards = new Map();
  /** @type {Map<string, IntegrationCard>} */
  elements = new Map();
  /** The dialogs that are open. @type {Map<string, {close: () => void, form?: any, kind: 'form' | 'ask'}>} */
  dialogs = new Map();

  connectedCallback() {
    this.stop = new AbortController();
    const { signal } = this.stop;
    this.list = h('div.cards', null, loading(5));
    this.stale = h('div');
    replace(
      this,
      heading(texts.pages.integrations, texts.integrations.lead, liveState(this.context.api.live)),
      this.may.connect ? null : note('quiet', this.may.manage ? texts.integrations.checkOnly : texts.integrations.readOnly),
      this.stale,
      this.list,
    );
    this.setAttribute('data-state', 'loading');
    // Back from the consent page by the browser's button.
    window.addEventListener('pageshow', (event) => event.persisted && this.dispatch('google_calendar', { type: 'close' }), { signal });
    this.load().then(() => {
      // A credential is in trouble by what its actions came to.
      if (this.isConnected) this.unwatch = this.context.api.live.watch(['integrations', 'actions'], () => this.read());
    });
  }

  disconnectedCallback() {
    this.stop?.abort();
    this.unwatch?.();
    for (const { close } of [...this.dialogs.values()]) close();
  }

  get may() {
    const { session } = this.context;
    return { manage: session.can('manage'), connect: session.can('connect') };
  }

  async load() {
    try {
      const [{ providers }, { integrations }] = await Promise.all([
        this.context.api.get('/api/providers'),
        this.context.api.get('/api/integrations/status'),
      ]);
      if (!this.isConnected) return;
      const ordered = providers.map((/** @type {any} */ form) => {
        const element = /** @type {IntegrationCard} */ (h('integration-card'));
        element.press = (name) => this.act(form.provider, { type: name });
        this.elements.set(form.provider, element);
        this.cards.set(form.provider, card(form));
        return element;
      });
      for (const stored of integrations) this.dispatch(stored.provider, { type: 'status', ticket: 0, stored });
      this.returned();
      replace(/** @type {Element} */ (this.list), ordered);
      this.setAttribute('data-state', 'ready');
      // A form then opens at once. One that could not be loaded is asked for again.
      painted().then(loadForms).catch(() => {});
    } catch (error) {
      if (!this.isConnected) return;
      this.setAttribute('data-state', 'error');
      replace(/** @type {Element} */ (this.list), failure(error, () => this.load()));
    }
  }

  /** Reads the states again. What a card did meanwhile is newer than the answer. */
  async read() {
    if (document.hidden || this.cards.size === 0) return;
    const tickets = new Map([...this.cards].map(([provider, { ticket }]) => [provider, ticket]));
    try {
      const { integrations } = await this.context.api.get('/api/integrations/status', undefined, this.stop?.signal);
      for (const stored of integrations) {
        this.dispatch(stored.provider, { type: 'status', ticket: tickets.get(stored.provider), stored });
      }
      replace(/** @type {Element} */ (this.stale));
    } catch (error) {
      if (!this.isConnected) return;
      const { status } = /** @type {any} */ (error);
      if (status !== 401) replace(/** @type {Element} */ (this.stale), note('warn', texts.integrations.stale));
    }
  }

  /** What the provider's consent page came to, from the address. */
  returned() {
    const connected = this.query.get('connected');
    const error = this.query.get('error');
    if (connected === null && error === null) return;
    const provider = connected ?? 'google_calendar';
    const name = this.cards.get(provider)?.form.name ?? provider;
    const consent = texts.card.consent;
    const reason = this.query.get('reason') ?? error ?? '';
    const text = error === null ? consent.connected(name) : (REASONS.includes(reason) ? consent[reason] : REASONS.includes(error) ? consent[error] : consent.failed);
    this.dispatch(provider, {
      type: 'returned',
      said: { kind: error === null ? 'good' : 'bad', text, requestId: this.query.get('request_id') },
    });
    history.replaceState(null, '', href('integrations'));
  }

  /** @param {string} provider @param {Event_} event */
  dispatch(provider, event) {
    const before = this.cards.get(provider);
    if (before === undefined) return;
    const after = next(before, event);
    this.cards.set(provider, after);
    this.elements.get(provider)?.show(after, this.may);
    this.showDialogs(provider, after);
  }

  /** Opens, fills and closes the dialogs as the state says. @param {string} provider @param {Card} state */
  showDialogs(provider, state) {
    const open = this.dialogs.get(provider);
    const wanted = state.opened !== null ? 'form' : state.asking ? 'ask' : null;
    if (open && open.kind !== wanted) {
      this.dialogs.delete(provider);
      open.close();
    }
    if (wanted === null) return;
    if (!this.dialogs.has(provider)) this.dialogs.set(provider, wanted === 'form' ? this.openForm(provider, state) : this.openQuestion(provider, state));
    const dialog = this.dialogs.get(provider);
    if (wanted === 'form') dialog?.form.show(state);
    else dialog?.form(state);
  }

  /** @param {string} provider @param {Card} state @returns {{close: () => void, form: any, kind: 'form'}} */
  openForm(provider, state) {
    const { formOf, openDialog } = /** @type {NonNullable<typeof forms>} */ (forms);
    const form = formOf(provider);
    const { name } = state.form;
    const isNew = state.stored === null || state.stored.state === 'not_connected';
    form.dispatch = (event) => this.act(provider, event);
    const dialog = openDialog({
      title: isNew ? texts.form.title.connect(name) : texts.form.title.change(name),
      body: form,
      mayClose: () => this.cards.get(provider)?.opened?.phase !== 'saving',
      closed: () => {
        this.dialogs.delete(provider);
        this.dispatch(provider, { type: 'close' });
      },
    });
    form.close = dialog.close;
    form.show(state);
    /** @type {HTMLElement | null} */ (form.querySelector('input:not([type=radio]):not([type=checkbox]), button.primary'))?.focus();
    return { close: dialog.close, form, kind: 'form' };
  }

  /** @param {string} provider @param {Card} state @returns {{close: () => void, form: any, kind: 'ask'}} */
  openQuestion(provider, state) {
    const { openDialog } = /** @type {NonNullable<typeof forms>} */ (forms);
    const { name } = state.form;
    const ask = texts.card.ask;
    const yes = h('button.danger', { type: 'button', onclick: () => this.act(provider, { type: 'disconnect' }) }, ask.yes(name));
    const no = h('button', { type: 'button', autofocus: true, onclick: () => dialog.close() }, ask.no);
    const dialog = openDialog({
      title: ask.title(name),
      body: h(
        'div',
        null,
        h('p', null, ask.lead),
        h('ul', null, (ask.stops[provider] ?? []).map((/** @type {string} */ text) => h('li', null, text))),
        h('p', null, ask.kept),
        h('footer', null, no, yes),
      ),
      mayClose: () => this.cards.get(provider)?.busy !== 'disconnecting',
      closed: () => {
        this.dialogs.delete(provider);
        this.dispatch(provider, { type: 'keep' });
      },
      kind: 'question',
    });
    const form = (/** @type {Card} */ { busy }) => {
      yes.disabled = no.disabled = busy !== null;
      yes.textContent = busy === null ? ask.yes(name) : ask.working;
    };
    return { close: dialog.close, form, kind: 'ask' };
  }

  /** Tells an event, and asks the API where the state machine let it pass. @param {string} provider @param {Event_} event */
  async act(provider, event) {
    if (event.type === 'open' || event.type === 'ask') {
      try {
        await loadForms();
      } catch {
        return tell(texts.errors.offline, 'bad');
      }
    }
    const before = this.cards.get(provider);
    this.dispatch(provider, event);
    const state = this.cards.get(provider);
    if (state === undefined || before === undefined || state.ticket === before.ticket) return;
    const question = QUESTIONS[event.type];
    if (question === undefined) return;
    const { ticket } = state;
    try {
      this.dispatch(provider, { ...(await question(this.context.api, state)), ticket });
    } catch (error) {
      this.dispatch(provider, { type: 'refused', ticket, error });
    }
    if (event.type === 'verify') this.read();
  }
}
customElements.define('integrations-dashboard', IntegrationsDashboard);

const REASONS = ['denied', 'code_refused', 'client_refused', 'scopes_missing', 'consent_invalid', 'consent_refused', 'account_differs'];

/**
 * What is asked for each event that passed, and the event that the answer makes.
 * @type {Record<string, (api: import('../lib/api.js').Api, state: Card) => Promise<Event_>>}
 */
const QUESTIONS = {
  async test(api, state) {
    const { form } = state;
    return { type: 'tested', tested: await api.post(`/api/integrations/${form.provider}/test`, sent(state)) };
  },
  async save(api, state) {
    const { form, opened, stored } = state;
    const query = { unverified: opened?.unverified ? 'true' : null, replace_account: opened?.replace ? 'true' : null };
    const etag = stored?.etag ?? null;
    return { type: 'saved', stored: await api.post(`/api/integrations/${form.provider}`, sent(state), { query, etag }) };
  },
  async verify(api, { form }) {
    return { type: 'verified', stored: await api.post(`/api/integrations/${form.provider}/verify`) };
  },
  async disconnect(api, { form, stored }) {
    await api.delete(`/api/integrations/${form.provider}`, { etag: stored?.etag ?? null });
    const { integrations } = await api.get('/api/integrations/status');
    return { type: 'disconnected', stored: integrations.find((/** @type {any} */ each) => each.provider === form.provider) };
  },
  async leave(api, { opened }) {
    const query = { return_to: href('integrations'), replace_account: opened?.replace ? 'true' : null };
    const { url } = await api.get('/api/integrations/google_calendar/authorize', query);
    location.assign(url);
    return { type: 'left', name: '' };
  },
};

/** @param {Card} state */
function sent({ form, opened, stored }) {
  return opened === null ? {} : bodyOf(form, opened.way, opened.values, stored);
}

/** @param {import('../app.js').Context} context @param {import('../lib/page.js').Place} place */
export function view(context, place) {
  const element = /** @type {IntegrationsDashboard} */ (h('integrations-dashboard'));
  element.context = context;
  element.query = place.query;
  return element;
}
