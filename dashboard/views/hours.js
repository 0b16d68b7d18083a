// The settings of the organisation: a form for those who may change them, and words for the others.

/** @import * as Api from '../types/api.js' */

import { freshId, h, replace } from '../lib/dom.js';
import { sentence } from '../lib/fields.js';
import { WEEKDAYS, changesOf, draftOf, placed, textOf } from '../lib/hours.js';
import { fillFrom, note, tell } from '../parts/bits.js';
import texts from '../texts.js';

class OrganisationSettings extends HTMLElement {
  /** @type {import('../app.js').Context} */
  context = /** @type {any} */ (null);
  stored = /** @type {Api.SettingsView} */ (/** @type {unknown} */ (null));
  /** @type {Map<string, {input: any, error: HTMLElement}>} */
  fields = new Map();

  connectedCallback() {
    this.load();
  }

  load() {
    return fillFrom(this, this, async () => {
      this.stored = await this.context.api.get('/api/settings');
      return this.context.session.can('manage') ? this.form() : this.words();
    });
  }

  /** What a person sees who may not change it. */
  words() {
    const words = texts.hours;
    const { time_zone: zone, opening_hours: hours, quiet_hours: quiet } = this.stored;
    return h(
      'section.sheet',
      null,
      h('h2', null, words.title),
      this.damaged(),
      h(
        'dl',
        null,
        h('dt', null, words.zone),
        h('dd', null, zone ?? words.utc),
        h('dt', null, words.open),
        h('dd', null, hours ? WEEKDAYS.map((day) => h('p', null, `${words.days[day]}: ${textOf(hours[day]) || words.closed}`)) : words.noHours),
        h('dt', null, words.quiet),
        h('dd', null, quiet ? textOf([quiet]) : words.noQuiet),
        h('dt', null, words.kept),
        h('dd', null, this.keptFor()),
      ),
      note('quiet', words.readOnly),
    );
  }

  keptFor() {
    const words = texts.hours;
    const [own, most] = [this.stored.retention_days ?? null, this.stored.retention_days_max ?? null];
    if (own !== null && (most === null || own <= most)) return words.keptDays(own);
    return most === null ? words.keptForEver : words.keptByInstallation(most);
  }

  damaged() {
    const names = this.stored.damaged.map((name) => texts.hours.names[name] ?? name);
    return names.length > 0 && note('bad', texts.hours.damaged(names.join(', ')));
  }

  form() {
    const words = texts.hours;
    const draft = draftOf(this.stored);
    this.fields.clear();
    this.said = h('div');
    this.hasHours = h('input', { type: 'checkbox', checked: draft.hasHours });
    this.daysTo = h('div.pair', { hidden: !draft.hasHours }, WEEKDAYS.map((day) => this.field(`opening_hours.${day}`, words.days[day], h('input', { value: draft.days[day], autocomplete: 'off' }))));
    this.hasHours.addEventListener('change', () => this.daysTo?.toggleAttribute('hidden', !this.hasHours?.checked));
    const zones = freshId('zones');
    const most = this.stored.retention_days_max ?? null;
    const form = h(
      'form.sheet',
      { novalidate: true },
      h('h2', null, words.title),
      this.damaged(),
      this.field('time_zone', words.zone, h('input', { value: draft.zone, list: zones, autocomplete: 'off', spellcheck: 'false' }), words.hints.zone(ownZone())),
      h('datalist', { id: zones }, knownZones().map((zone) => h('option', { value: zone }))),
      h('fieldset', null, h('legend', null, words.open), h('p.hint', null, words.hints.open), h('label', null, this.hasHours, ' ', words.hasHours), this.daysTo),
      h(
        'fieldset',
        null,
        h('legend', null, words.quiet),
        h('p.hint', null, words.hints.quiet),
        h('div.pair', null, this.field('quiet_hours.from', words.from, h('input', { type: 'time', value: draft.quietFrom })), this.field('quiet_hours.until', words.until, h('input', { type: 'time', value: draft.quietUntil }))),
      ),
      this.field('retention_days', words.keptField, h('input', { value: draft.days_kept, inputmode: 'numeric', autocomplete: 'off' }), most === null ? words.hints.keptForEver : words.hints.kept(most)),
      this.said,
      h('footer.row', null, h('button.primary', { type: 'submit', 'data-key': 'settings-save' }, texts.form.save)),
    );
    form.addEventListener('submit', (/** @type {Event} */ event) => {
      event.preventDefault();
      this.save();
    });
    return form;
  }

  /** @param {string} name @param {string} label @param {any} input @param {string | null} [hint] */
  field(name, label, input, hint = null) {
    const id = freshId('settings');
    const error = h('p.field-error', { id: `${id}-error` });
    input.id = id;
    input.name = name;
    input.setAttribute('aria-describedby', `${id}-hint ${id}-error`);
    this.fields.set(name, { input, error });
    return h('div.field', { 'data-field': name }, h('label', { for: id }, label), input, h('p.hint', { id: `${id}-hint` }, hint), error);
  }

  /** @param {string} name */
  value(name) {
    return this.fields.get(name)?.input.value ?? '';
  }

  async save() {
    const words = texts.hours;
    const changes = changesOf({
      zone: this.value('time_zone'),
      hasHours: this.hasHours?.checked ?? false,
      days: Object.fromEntries(WEEKDAYS.map((day) => [day, this.value(`opening_hours.${day}`)])),
      quietFrom: this.value('quiet_hours.from'),
      quietUntil: this.value('quiet_hours.until'),
      days_kept: this.value('retention_days'),
    });
    try {
      this.stored = await this.context.api.patch('/api/settings', changes, { etag: this.stored.etag });
      replace(this, this.form());
      tell(words.saved);
    } catch (error) {
      const { errors, message, status } = /** @type {any} */ (error);
      const found = placed(errors ?? []);
      this.showErrors(found);
      replace(/** @type {Element} */ (this.said), note('bad', status === 412 ? words.changedElsewhere : (found[''] ?? (Object.keys(found).length > 0 ? words.wrong : message))));
      // The first one on the page.
      /** @type {HTMLElement | null} */ (this.querySelector('[aria-invalid]'))?.focus();
    }
  }

  /** @param {Record<string, string>} found */
  showErrors(found) {
    for (const [name, { input, error }] of this.fields) {
      const text = found[name] === undefined ? '' : sentence(found[name]);
      error.textContent = text;
      if (text === '') input.removeAttribute('aria-invalid');
      else input.setAttribute('aria-invalid', 'true');
    }
  }
}
customElements.define('organisation-settings', OrganisationSettings);

function ownZone() {
  return new Intl.DateTimeFormat().resolvedOptions().timeZone;
}

/** @returns {string[]} */
function knownZones() {
  return /** @type {any} */ (Intl).supportedValuesOf?.('timeZone') ?? [];
}

/** @param {import('../app.js').Context} context */
export function organisationSettings(context) {
  return Object.assign(h('organisation-settings'), { context });
}
