// Rules: the list with its switches, and the editor with a dry run beside it.

/** @import * as Api from '../types/api.js' */

import { freshKey } from '../lib/api.js';
import { freshId, h, replace } from '../lib/dom.js';
import { short } from '../lib/format.js';
import { go, href } from '../lib/page.js';
import { READY, readyOf } from '../lib/ready.js';
import { draftOf, emptyDraft, failures, fieldsOf, placed, specOf, waitsForQuietHours, withField } from '../lib/rule.js';
import { sentence } from '../lib/fields.js';
import { badge, empty, fillFrom, heading, note, tell, time } from '../parts/bits.js';
import { openDialog } from '../parts/dialog.js';
import { pagedList } from '../parts/paged.js';
import texts from '../texts.js';

const RUN_AFTER_MS = 400;

class RulesView extends HTMLElement {
  /** @type {import('../app.js').Context} */
  context = /** @type {any} */ (null);

  connectedCallback() {
    const { api, session } = this.context;
    const words = texts.rules;
    const mayEdit = session.can('manage');
    this.damaged = h('div');
    this.list = pagedList({
      api,
      path: '/api/rules',
      label: texts.pages.rules,
      none: () => empty(words.none, words.noneYet),
      read_: (answer) => this.showDamaged(answer.damaged ?? []),
      columns: [
        { label: words.columns.name, cell: (/** @type {Api.RuleView} */ row) => h('a', { href: href('rules', row.id) }, row.name) },
        { label: words.columns.on, cell: (/** @type {Api.RuleView} */ row) => [row.source, ' ', h('code', null, row.event_type)] },
        { label: words.columns.does, cell: (/** @type {Api.RuleView} */ row) => texts.actions.kinds[row.action] ?? row.action },
        { label: words.columns.enabled, cell: (/** @type {Api.RuleView} */ row) => (mayEdit ? this.switch(row) : badge(row.enabled ? 'good' : 'quiet', row.enabled ? words.on : words.off)) },
      ],
    });
    replace(
      this,
      heading(texts.pages.rules, words.lead, mayEdit && h('a.button.primary', { href: href('rules', 'new') }, words.new)),
      this.damaged,
      this.list,
      mayEdit && [
        h('h2', null, words.ready),
        h('div.cards', null, READY.map((ready) => h('a.ready', { href: href('rules', 'new', { ready: ready.key }) }, h('strong', null, ready.spec.name), h('span.quiet', null, words.readyLeads[ready.key])))),
      ],
    );
  }

  /** @param {Api.DamagedRuleView[]} damaged */
  showDamaged(damaged) {
    replace(/** @type {Element} */ (this.damaged), damaged.map((rule) => note('bad', h('p', null, rule.problem), rule.id && h('p.quiet', null, rule.id))));
  }

  /** @param {Api.RuleView} row */
  switch(row) {
    const words = texts.rules;
    const element = h(
      'button.switch',
      { type: 'button', role: 'switch', 'aria-checked': String(row.enabled), 'aria-label': words.switch(row.name), 'data-key': `switch-${row.id}` },
      row.enabled ? words.on : words.off,
    );
    element.addEventListener('click', async () => {
      element.disabled = true;
      try {
        await this.context.api.patch(`/api/rules/${row.id}`, { enabled: !row.enabled }, { etag: row.etag });
        tell(row.enabled ? words.switchedOff(row.name) : words.switchedOn(row.name));
      } catch (error) {
        tell(/** @type {any} */ (error).status === 412 ? texts.form.changedElsewhere : /** @type {Error} */ (error).message, 'bad');
      }
      element.disabled = false;
      this.list?.refresh();
    });
    return element;
  }
}
customElements.define('rules-view', RulesView);

class RuleEditor extends HTMLElement {
  /** @type {import('../app.js').Context} */
  context = /** @type {any} */ (null);
  rule = '';
  /** @type {string | null} */
  ready = null;
  catalog = /** @type {Api.CatalogView} */ (/** @type {unknown} */ (null));
  draft = emptyDraft();
  /** @type {Map<string, {input: any, error: HTMLElement}>} */
  fields = new Map();
  /** Of the rule that is being made, until something in it changes. */
  key = freshKey();
  /** The newest dry run: an older answer is dropped. */
  run = 0;

  connectedCallback() {
    this.load();
  }

  disconnectedCallback() {
    clearTimeout(this.timer);
    this.run += 1;
  }

  get mayEdit() {
    return this.context.session.can('manage');
  }

  load() {
    return fillFrom(this, this, async () => {
      const { api } = this.context;
      const isNew = this.rule === 'new';
      const [catalog, stored, destinations] = await Promise.all([
        api.get('/api/catalog'),
        isNew ? null : api.get(`/api/rules/${encodeURIComponent(this.rule)}`),
        api.get('/api/destinations', { limit: 200 }),
      ]);
      this.catalog = catalog;
      this.destinations = destinations.data.map((/** @type {any} */ each) => each.name);
      this.stored = stored;
      if (stored?.damaged) return [heading(texts.rules.damaged, null, this.deleteButton()), note('bad', stored.problem)];
      this.draft = stored === null ? { ...draftOf(readyOf(this.ready)?.spec ?? {}), enabled: true } : draftOf(stored);
      return this.page(isNew);
    });
  }

  /** @param {boolean} isNew */
  page(isNew) {
    const words = texts.rules;
    this.said = h('div');
    this.parametersTo = h('div.fields');
    const quiet = select(Object.entries(words.quiet), this.draft.quiet);
    this.quietTo = h('div', null, this.field('ignores_quiet_hours', words.fields.quiet, quiet, words.hints.quiet));
    this.result = h('div.parts', { 'aria-live': 'polite' });
    this.sampleTo = h('div.fields');
    const form = h(
      'form.sheet',
      { novalidate: true },
      this.field('name', words.fields.name, h('input', { maxlength: 100, value: this.draft.name })),
      h(
        'div.pair',
        null,
        this.field('source', words.fields.source, select(this.catalog.sources.map((/** @type {any} */ each) => [each.source, texts.providers[each.source] ?? each.source]), this.draft.source)),
        this.field('event_type', words.fields.event_type, this.eventTypes(), words.hints.event_type),
      ),
      this.field('when', words.fields.when, h('textarea.mono', { rows: 2, value: this.draft.when, spellcheck: 'false' }), words.hints.when),
      this.field('action', words.fields.action, select(this.catalog.actions.map((/** @type {any} */ each) => [each.action, texts.actions.kinds[each.action] ?? each.action]), this.draft.action)),
      this.parametersTo,
      this.quietTo,
      this.field('expires_after_seconds', words.fields.hours, h('input', { value: this.draft.hours, inputmode: 'decimal' }), words.hints.hours),
      this.said,
      this.mayEdit
        ? h('footer.row', null, h('button.primary', { type: 'submit' }, texts.form.save), h('a.button', { href: href('rules') }, texts.bits.cancel), isNew ? null : this.deleteButton())
        : note('quiet', words.readOnly),
    );
    form.addEventListener('submit', (/** @type {Event} */ event) => {
      event.preventDefault();
      this.save();
    });
    form.addEventListener('input', () => this.changed());
    form.addEventListener('change', (/** @type {Event} */ event) => {
      const name = /** @type {any} */ (event.target).name;
      if (name === 'action') this.showParameters();
      if (name === 'source' || name === 'event_type') this.chooseSample();
    });
    form.addEventListener('focusin', (/** @type {FocusEvent} */ event) => {
      const target = /** @type {any} */ (event.target);
      if (target.name === 'when' || target.name?.startsWith('parameters.')) this.last = target;
    });
    this.showParameters();
    this.chooseSample();
    return [
      heading(isNew ? words.new : words.edit, null),
      h('div.editor', null, form, this.mayEdit && h('section.sheet', { 'aria-label': words.tried }, h('h2', null, words.tried), h('p.quiet', null, words.triedLead), this.sampleTo, this.result)),
    ];
  }

  /** @param {string} name @param {string} label @param {any} input @param {string | null} [hint] */
  field(name, label, input, hint = null) {
    const id = freshId('rule');
    const error = h('p.field-error', { id: `${id}-error` });
    const control = input.matches('input, select, textarea') ? input : input.querySelector('input');
    control.id = id;
    control.name = name;
    control.setAttribute('aria-describedby', `${id}-hint ${id}-error`);
    if (!this.mayEdit) control.disabled = true;
    this.fields.set(name, { input: control, error });
    return h('div.field', { 'data-field': name }, h('label', { for: id }, label), input, h('p.hint', { id: `${id}-hint` }, hint), error);
  }

  /** The type of the event, with the types of its source to choose from. */
  eventTypes() {
    const list = freshId('types');
    this.types = h('datalist', { id: list });
    return h('div', null, h('input', { value: this.draft.event_type, list, autocomplete: 'off', spellcheck: 'false' }), this.types);
  }

  get source() {
    return this.catalog.sources.find((/** @type {any} */ each) => each.source === this.fields.get('source')?.input.value);
  }

  get parameters() {
    const action = this.fields.get('action')?.input.value;
    return this.catalog.actions.find((/** @type {any} */ each) => each.action === action)?.parameters ?? [];
  }

  showParameters() {
    if (this.quietTo) this.quietTo.hidden = !waitsForQuietHours(this.fields.get('action')?.input.value);
    for (const name of [...this.fields.keys()]) if (name.startsWith('parameters.')) this.fields.delete(name);
    const words = texts.rules;
    const row = (/** @type {any} */ each) => {
      const value = this.draft.parameters[each.name] ?? '';
      const isList = each.type.includes('list of texts');
      const control =
        each.name === 'destination'
          ? this.destinationField(value)
          : each.multiline || isList
            ? h('textarea', { rows: isList ? 2 : 4, value, class: each.type.includes('object') ? 'mono' : null })
            : h('input', { value, autocomplete: 'off' });
      const label = `${texts.rules.parameters[each.name] ?? each.name}${each.required ? '' : ` (${texts.form.optional})`}`;
      return this.field(`parameters.${each.name}`, label, control, [each.help && sentence(each.help), each.example && texts.form.example(each.example)].filter(Boolean).join(' '));
    };
    const isShown = (/** @type {any} */ each) => each.required || (this.draft.parameters[each.name] ?? '') !== '' || SHOWN.has(each.name);
    const rest = this.parameters.filter((/** @type {any} */ each) => !isShown(each));
    replace(
      /** @type {Element} */ (this.parametersTo),
      this.parameters.filter(isShown).map(row),
      rest.length > 0 && h('details', null, h('summary', null, words.more), h('div.fields', null, rest.map(row))),
    );
  }

  /** @param {string} value */
  destinationField(value) {
    const list = freshId('destinations');
    return h('div', null, h('input', { value, list, autocomplete: 'off' }), h('datalist', { id: list }, (this.destinations ?? []).map((/** @type {string} */ name) => h('option', { value: name }))));
  }

  /** Reads the fields into the draft. */
  read() {
    const value = (/** @type {string} */ name) => this.fields.get(name)?.input.value ?? '';
    const parameters = { ...this.draft.parameters };
    for (const [name, { input }] of this.fields) if (name.startsWith('parameters.')) parameters[name.slice('parameters.'.length)] = input.value;
    this.draft = {
      ...this.draft,
      name: value('name'),
      source: value('source'),
      event_type: value('event_type'),
      when: value('when'),
      action: value('action'),
      hours: value('expires_after_seconds'),
      quiet: value('ignores_quiet_hours'),
      parameters,
    };
    return specOf(this.draft, this.parameters);
  }

  changed() {
    this.key = freshKey();
    this.read();
    clearTimeout(this.timer);
    this.timer = setTimeout(() => this.dryRun(), RUN_AFTER_MS);
  }

  /** The samples of the chosen type, and the newest events of it. */
  async chooseSample() {
    const words = texts.rules;
    const { source } = this;
    const type = this.fields.get('event_type')?.input.value ?? '';
    const types = source?.event_types ?? [];
    replace(/** @type {Element} */ (this.types), types.map((/** @type {any} */ each) => h('option', { value: each.event_type })));
    if (!this.mayEdit) return;
    const run = (this.choosing = (this.choosing ?? 0) + 1);
    const matches = types.filter((/** @type {any} */ each) => each.event_type === type || type === '' || type.includes('*'));
    const samples = matches.flatMap((/** @type {any} */ each) => each.samples);
    const exact = matches.length === 1 ? matches[0].type : null;
    const { data } = await this.context.api.get('/api/events', { source: source?.source, type: exact, limit: 10 }).catch(() => ({ data: [] }));
    if (run !== this.choosing || !this.isConnected) return;
    const events = data.map((/** @type {any} */ event) => [`event:${event.id}`, `${event.type}, ${short(event.received_at)}`]);
    const options = [...events, ...samples.map((/** @type {string} */ name) => [`sample:${name}`, name])];
    const id = freshId('sample');
    const group = (/** @type {string} */ label, /** @type {[string, string][]} */ of) =>
      of.length > 0 && h('optgroup', { label }, of.map(([value, text]) => h('option', { value, selected: value === options[0][0] }, text)));
    const chosen = h('select', { id }, group(words.events, events), group(words.samples, options.slice(events.length)));
    chosen.addEventListener('change', () => this.loadSample(chosen.value));
    this.fieldsTo = h('div');
    replace(/** @type {Element} */ (this.sampleTo), h('div.field', null, h('label', { for: id }, words.on_), options.length === 0 ? h('p', null, words.noSample) : chosen), this.fieldsTo);
    this.loadSample(options[0]?.[0] ?? '');
  }

  /** @param {string} chosen */
  async loadSample(chosen) {
    const { api } = this.context;
    const [kind, ...rest] = chosen.split(':');
    const name = rest.join(':');
    this.sample = undefined;
    if (name === '') return;
    const run = (this.loading = (this.loading ?? 0) + 1);
    try {
      const path = kind === 'event' ? `/api/events/${name}` : `/api/catalog/samples/${encodeURIComponent(name)}`;
      const loaded = await api.get(path);
      if (run !== this.loading || !this.isConnected) return;
      this.sample = kind === 'event' ? { event_id: name } : { sample: { event_type: loaded.event_type, body: loaded.body } };
      this.showFields(fieldsOf(this.fields.get('source')?.input.value, loaded.body));
      this.dryRun();
    } catch (error) {
      if (run === this.loading) replace(/** @type {Element} */ (this.result), note('bad', /** @type {Error} */ (error).message));
    }
  }

  /** The fields of the sample, to put into a template. @param {{path: string, example: string}[]} fields */
  showFields(fields) {
    const words = texts.rules;
    const id = freshId('insert');
    const list = freshId('paths');
    const input = h('input', { id, list, autocomplete: 'off', spellcheck: 'false', placeholder: fields[0]?.path });
    const insert = () => {
      const target = this.last ?? this.fields.get('parameters.body')?.input ?? this.fields.get('when')?.input;
      if (input.value === '' || !target?.isConnected) return;
      const put = withField({ text: target.value, start: target.selectionStart ?? target.value.length, end: target.selectionEnd ?? target.value.length }, input.value, target.name !== 'when');
      target.value = put.text;
      target.focus();
      target.setSelectionRange(put.caret, put.caret);
      input.value = '';
      this.changed();
    };
    input.addEventListener('keydown', (/** @type {KeyboardEvent} */ event) => {
      if (event.key !== 'Enter') return;
      event.preventDefault();
      insert();
    });
    replace(
      /** @type {Element} */ (this.fieldsTo),
      h(
        'div.field',
        null,
        h('label', { for: id }, words.insert),
        h('div.input', null, input, h('button', { type: 'button', onclick: insert }, words.insertButton)),
        h('datalist', { id: list }, fields.map(({ path, example }) => h('option', { value: path }, example))),
        h('p.hint', null, words.insertHint),
      ),
    );
  }

  /** Tries the draft on the sample. Nothing is done and nothing saved. */
  async dryRun() {
    if (!this.mayEdit || this.sample === undefined) return;
    const run = (this.run += 1);
    const spec = this.read();
    const words = texts.rules;
    try {
      const ran = await this.context.api.post('/api/rules/dry-run', { spec: { ...spec, name: spec.name || '-' }, ...this.sample });
      if (run !== this.run) return;
      const failed = ran.outcome === 'failed' ? placed(failures(ran)) : {};
      this.showErrors(failed);
      this.result?.setAttribute('data-outcome', ran.outcome);
      replace(
        /** @type {Element} */ (this.result),
        ran.outcome === 'planned'
          ? [note('good', words.planned), ran.held_until && note('warn', h('p', null, words.held, ' ', time(ran.held_until), '.')), h('dl', null, Object.entries(ran.parameters).map(([name, value]) => [h('dt', null, texts.rules.parameters[name] ?? name), h('dd.rendered', null, typeof value === 'string' ? value : JSON.stringify(value, null, 2))]))]
          : ran.outcome === 'not_matched'
            ? note('quiet', words.notMatched[ran.field] ?? ran.field)
            : note('bad', h('p', null, words.wouldFail), failures(ran).map(({ field, problem }) => h('p', null, nameOf(field), problem))),
        (ran.warnings ?? []).map((/** @type {any} */ each) => note('warn', each.problem ?? each)),
      );
    } catch (error) {
      if (run !== this.run) return;
      const { errors, message } = /** @type {any} */ (error);
      this.result?.setAttribute('data-outcome', 'invalid');
      this.showErrors(placed(errors ?? []));
      replace(/** @type {Element} */ (this.result), note('quiet', (errors ?? []).length > 0 ? words.unfinished : message));
    }
  }

  /** @param {Record<string, string>} found */
  showErrors(found) {
    for (const [name, { input, error }] of this.fields) {
      const text = found[name] === undefined ? '' : sentence(found[name]);
      if (error.textContent !== text) error.textContent = text;
      input.toggleAttribute('aria-invalid', text !== '');
      if (text !== '') input.setAttribute('aria-invalid', 'true');
    }
  }

  async save() {
    const { api } = this.context;
    const words = texts.rules;
    const spec = this.read();
    replace(/** @type {Element} */ (this.said));
    clearTimeout(this.timer);
    this.run += 1;
    try {
      const saved = this.stored ? await api.put(`/api/rules/${this.stored.id}`, spec, { etag: this.stored.etag }) : await api.post('/api/rules', spec, { key: this.key });
      for (const warning of saved.warnings ?? []) tell(warning.problem ?? String(warning), 'bad');
      tell(words.saved(spec.name));
      go(href('rules'));
    } catch (error) {
      const { errors, message, status } = /** @type {any} */ (error);
      const found = placed(errors ?? []);
      this.showErrors(found);
      replace(/** @type {Element} */ (this.said), note('bad', status === 412 ? texts.form.changedElsewhere : found[''] ?? message));
      [...this.fields.values()].find(({ input }) => input.hasAttribute('aria-invalid'))?.input.focus();
    }
  }

  deleteButton() {
    const words = texts.rules;
    if (!this.mayEdit) return null;
    return h('button.danger', { type: 'button', 'data-key': 'delete', onclick: () => this.askDelete() }, words.delete);
  }

  askDelete() {
    const words = texts.rules;
    const { api } = this.context;
    const yes = h('button.danger', { type: 'button' }, words.delete);
    const dialog = openDialog({
      title: words.askDelete(this.stored.name ?? this.rule),
      body: h('div', null, h('p', null, words.deleteLead), h('footer', null, h('button', { type: 'button', onclick: () => dialog.close() }, texts.card.ask.no), yes)),
    });
    yes.addEventListener('click', async () => {
      yes.disabled = true;
      try {
        await api.delete(`/api/rules/${this.rule}`, { etag: this.stored.etag ?? null });
        dialog.close();
        tell(words.deleted);
        go(href('rules'));
      } catch (error) {
        dialog.close();
        tell(/** @type {Error} */ (error).message, 'bad');
      }
    });
  }
}
customElements.define('rule-editor', RuleEditor);

/** A field by the name that the form gives it. @param {string} field */
function nameOf(field) {
  if (field === '') return '';
  const name = field.replace(/^parameters\./, '');
  return `${texts.rules.parameters[name] ?? texts.rules.fields[name] ?? name}: `;
}

/** Parameters that stand in the form without being asked for. */
const SHOWN = new Set(['body', 'text', 'start', 'end']);

/** @param {[string, string][]} options @param {string} value */
function select(options, value) {
  return h('select', null, options.map(([each, label]) => h('option', { value: each, selected: each === value }, label)));
}

/** @param {import('../app.js').Context} context @param {import('../lib/page.js').Place} place */
export function view(context, place) {
  if (place.id === null) return Object.assign(h('rules-view'), { context });
  return Object.assign(h('rule-editor'), { context, rule: place.id, ready: place.query.get('ready') });
}
