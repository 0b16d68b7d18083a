// Who is signed in, the settings of the organisation, and what the roles may do.

import { h, replace } from '../lib/dom.js';
import { copyable, heading, time } from '../parts/bits.js';
import { organisationSettings } from './hours.js';
import texts from '../texts.js';

class SettingsView extends HTMLElement {
  /** @type {import('../app.js').Context} */
  context = /** @type {any} */ (null);

  connectedCallback() {
    const words = texts.settings;
    const me = this.context.session.me ?? { can: [] };
    replace(
      this,
      heading(texts.pages.settings, words.lead),
      h(
        'section.sheet',
        null,
        h('h2', null, words.you),
        h(
          'dl',
          null,
          me.subject && [h('dt', null, words.subject), h('dd', null, me.subject)],
          me.role && [h('dt', null, words.role), h('dd', null, texts.roles[me.role] ?? me.role)],
          me.organisation && [h('dt', null, words.organisation), h('dd', null, me.organisation.name ?? '–'), h('dt', null, words.id), h('dd', null, copyable(me.organisation.id, words.id))],
          me.expires_at && [h('dt', null, words.ends), h('dd', null, time(me.expires_at))],
          h('dt', null, words.times),
          h('dd', null, words.zone(new Intl.DateTimeFormat().resolvedOptions().timeZone)),
        ),
      ),
      me.organisation && organisationSettings(this.context),
      h(
        'section.sheet',
        null,
        h('h2', null, words.roles),
        h('dl', null, Object.entries(words.may).filter(([role]) => (role === 'operator') === this.context.session.can('operate')).map(([role, may]) => [h('dt', null, texts.roles[role]), h('dd', null, may)])),
        h('p.quiet', null, words.rolesFrom),
      ),
      h('section.sheet', null, h('h2', null, words.installation), h('p', null, words.installationLead)),
    );
  }
}
customElements.define('settings-view', SettingsView);

/** @param {import('../app.js').Context} context */
export function view(context) {
  return Object.assign(h('settings-view'), { context });
}
