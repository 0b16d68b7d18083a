// The progress of work on many actions, read again until it has ended, with its stop.

/** @import * as Api from '../types/api.js' */

import { h, replace } from '../lib/dom.js';
import { progressOf } from '../lib/bulk.js';
import { number } from '../lib/format.js';
import { badge, failure, loading, note, tell, time } from './bits.js';
import texts from '../texts.js';

/** Where no stream tells of it. */
const READ_EVERY_MS = 1_000;
/** @type {Record<string, string>} */
const TONES = { running: 'warn', done: 'good', stopped: 'quiet' };

class JobProgress extends HTMLElement {
  /** @type {() => Promise<Api.JobView>} */
  job_ = /** @type {any} */ (null);
  /** Stops it. `null`: the person may not. @type {(() => Promise<Api.JobView>) | null} */
  stop_ = null;
  /** @type {import('../lib/live.js').Live} */
  live = /** @type {any} */ (null);
  /** The lists of the API by whose changes it is read again. Without one it is polled. @type {string[]} */
  lists = [];
  label = '';
  drawn = '';

  connectedCallback() {
    replace(this, loading(1));
    this.unwatch = this.live.watch(this.lists, () => this.read(), READ_EVERY_MS);
    this.read();
  }

  disconnectedCallback() {
    this.unwatch?.();
  }

  async read() {
    try {
      this.show(await this.job_(), false);
    } catch (error) {
      // A job that was read stays as it was; one that was never read says why.
      if (this.job === undefined || /** @type {any} */ (error).status === 404) {
        this.setAttribute('data-state', 'error');
        this.unwatch?.();
        return replace(this, failure(error, () => this.connectedCallback()));
      }
      this.show(this.job, true);
    }
    if (this.job !== undefined && progressOf(this.job).hasEnded) this.unwatch?.();
  }

  async stop() {
    try {
      if (this.stop_ !== null) this.show(await this.stop_(), false);
    } catch (error) {
      tell(/** @type {Error} */ (error).message, 'bad');
    }
  }

  /** @param {Api.JobView} job @param {boolean} isStale */
  show(job, isStale) {
    this.job = job;
    const drawn = JSON.stringify([job, isStale]);
    if (drawn === this.drawn) return;
    this.drawn = drawn;
    const words = texts.jobs;
    const { max, at, left, hasEnded } = progressOf(job);
    this.setAttribute('data-state', job.state);
    replace(
      this,
      h(
        'section.sheet',
        null,
        h('header', null, h('h2', null, this.label || words.verbs[job.verb] || job.verb), badge(TONES[job.state] ?? 'quiet', words.states[job.state] ?? job.state, job.state)),
        isStale && note('warn', texts.lists.stale),
        h('progress', { max, value: at, 'aria-label': words.progress }, `${at}/${max}`),
        h('p', { role: 'status' }, words.counts(number(job.done), number(job.planned), number(job.skipped))),
        job.state === 'stopped' && left > 0 && h('p', null, words.left(number(left))),
        h('dl', null, fact(words.by, job.actor), fact(words.started, time(job.started_at)), job.ended_at && fact(words.ended, time(job.ended_at))),
        this.stop_ !== null && !hasEnded && h('footer.row', null, h('button.danger', { type: 'button', 'data-key': `stop-${job.id}`, 'data-do': 'stop', onclick: () => this.stop() }, words.stop), h('span.hint', null, words.stopHint)),
      ),
    );
  }
}
customElements.define('job-progress', JobProgress);

/** @param {string} name @param {any} value */
function fact(name, value) {
  return [h('dt', null, name), h('dd', null, value)];
}

/** @param {Partial<JobProgress>} settings @returns {JobProgress} */
export function jobProgress(settings) {
  return Object.assign(/** @type {JobProgress} */ (h('job-progress')), settings);
}

/**
 * The lines of a plan.
 * @param {ReturnType<typeof import('../lib/bulk.js').linesOf>} lines
 */
export function planTable(lines) {
  const words = texts.jobs.columns;
  const cell = (/** @type {string} */ label, /** @type {any} */ value) => h('td', { 'data-label': label }, h('div', null, value));
  const hasOrganisations = lines.some((line) => line.org_id !== null);
  return h(
    'table',
    { 'aria-label': texts.jobs.plan },
    h('thead', null, h('tr', null, [hasOrganisations && words.organisation, words.state, words.provider, words.count].filter(Boolean).map((label) => h('th', { scope: 'col' }, label)))),
    h(
      'tbody',
      null,
      lines.map((line) =>
        h(
          'tr',
          null,
          hasOrganisations && cell(words.organisation, h('code', null, line.org_id)),
          cell(words.state, texts.actions.states[line.state] ?? line.state),
          cell(words.provider, texts.providers[line.provider] ?? line.provider),
          cell(words.count, number(line.count)),
        ),
      ),
    ),
  );
}
