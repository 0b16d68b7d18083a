// Whether the page is told of changes, or asks for them.

import { h, replace } from '../lib/dom.js';
import texts from '../texts.js';

class LiveState extends HTMLElement {
  /** @type {import('../lib/live.js').Live} */
  live = /** @type {any} */ (null);

  connectedCallback() {
    // Screen readers say a change of it when they have nothing else to say.
    this.setAttribute('role', 'status');
    this.unlisten = this.live.listen(() => this.show());
    this.show();
  }

  disconnectedCallback() {
    this.unlisten?.();
  }

  show() {
    const { state } = this.live;
    this.setAttribute('data-state', state);
    const words = texts.live[state];
    replace(this, words === undefined ? null : h(`span.badge.${state === 'live' ? 'good' : 'quiet'}`, { title: words.hint }, words.label));
  }
}
customElements.define('live-state', LiveState);

/** @param {import('../lib/live.js').Live} live */
export function liveState(live) {
  return Object.assign(h('live-state'), { live });
}
