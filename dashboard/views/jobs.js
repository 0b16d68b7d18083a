// Work on many actions at once: one job's progress, and the cancelling by operators.

/** @import * as Api from '../types/api.js' */

import { addressOf, jobsOf, linesOf } from '../lib/bulk.js';
import { freshKey } from '../lib/api.js';
import { h, replace } from '../lib/dom.js';
import { number } from '../lib/format.js';
import { go, href } from '../lib/page.js';
import { targetOf } from '../lib/pauses.js';
import { askFirst, askForm } from '../parts/ask.js';
import { empty, heading, liveState, note } from '../parts/bits.js';
import { openDialog } from '../parts/dialog.js';
import { jobProgress, planTable } from '../parts/job.js';
import { scopeFields } from '../parts/scope.js';
import texts from '../texts.js';

/** One job of the organisation. */
class JobView extends HTMLElement {
  /** @type {import('../app.js').Context} */
  context = /** @type {any} */ (null);
  job = '';

  connectedCallback() {
    const { api, session } = this.context;
    const job = encodeURIComponent(this.job);
    replace(
      this,
      heading(texts.jobs.title, texts.jobs.lead, liveState(api.live)),
      jobProgress({
        live: api.live,
        lists: ['jobs'],
        job_: () => api.get(`/api/jobs/${job}`),
        stop_: session.can('retry') ? () => api.post(`/api/jobs/${job}/stop`) : null,
      }),
      h('p', null, h('a', { href: href('actions') }, texts.jobs.toActions)),
    );
  }
}
customElements.define('job-view', JobView);

/** The cancelling by operators, and its progress. */
class OperatorJobsView extends HTMLElement {
  /** @type {import('../app.js').Context} */
  context = /** @type {any} */ (null);
  query = new URLSearchParams();

  connectedCallback() {
    const words = texts.jobs.operator;
    this.list = h('div.cards');
    replace(
      this,
      heading(texts.pages.jobs, words.lead, h('button', { type: 'button', 'data-key': 'cancel-open', onclick: () => this.ask() }, words.open)),
      note('quiet', words.pauseFirst),
      this.list,
    );
    this.show();
  }

  /** @param {import('../lib/page.js').Place} place */
  placeChanged(place) {
    this.query = place.query;
    this.show();
  }

  show() {
    const jobs = jobsOf(this.query.get('jobs'));
    const { api } = this.context;
    replace(
      /** @type {Element} */ (this.list),
      jobs.length === 0
        ? empty(texts.jobs.operator.none, texts.jobs.operator.noneYet)
        : jobs.map(({ org_id, id }) => {
            const job = encodeURIComponent(id);
            return jobProgress({
              live: api.live,
              job_: () => api.get(`/operator/jobs/${job}`, { org_id }),
              stop_: () => api.post(`/operator/jobs/${job}/stop`, undefined, { query: { org_id } }),
              label: org_id,
            });
          }),
    );
  }

  /** The plan comes first: nothing is cancelled unseen. */
  ask() {
    const words = texts.jobs.operator;
    askForm({
      title: words.title,
      lead: words.formLead,
      button: words.look,
      fields: scopeFields(words.scopes),
      send: async (values) => {
        const target = targetOf(/** @type {any} */ (values));
        const plan = /** @type {Api.BulkPlanView} */ (await this.context.api.post('/operator/actions/cancel', target, { query: { plan: true } }));
        // The form closes first, so that one dialog is open at a time.
        setTimeout(() => this.askPlan(target, plan));
      },
    });
  }

  /** @param {ReturnType<typeof targetOf>} target @param {Api.BulkPlanView} plan */
  askPlan(target, plan) {
    const { api } = this.context;
    askPlan(texts.jobs.cancel, plan, async () => {
      const begun = /** @type {Api.BegunView} */ (await api.post('/operator/actions/cancel', target));
      go(href('jobs', null, { jobs: addressOf(begun.jobs) }));
    });
  }
}
customElements.define('operator-jobs-view', OperatorJobsView);

/**
 * A plan, and the question whether it is to be done.
 * @param {{title: (count: string) => string, yes: (count: string) => string, lead: string}} words
 * @param {Api.BulkPlanView} plan
 * @param {() => Promise<void>} act
 */
export function askPlan(words, plan, act) {
  if (plan.count === 0) {
    const dialog = openDialog({
      title: texts.jobs.nothing,
      body: h('div', null, h('p', null, texts.jobs.nothingLead), h('footer', null, h('button', { type: 'button', autofocus: true, onclick: () => dialog.close() }, texts.bits.close))),
    });
    return;
  }
  const count = number(plan.count);
  askFirst({ title: words.title(count), lead: [words.lead], more: planTable(linesOf(plan.by)), yes: words.yes(count), act });
}

/**
 * Looks at what a job would touch, asks, begins it, and shows its progress.
 * @param {import('../lib/api.js').Api} api
 * @param {'retry' | 'cancel'} verb
 * @param {Record<string, string>} request
 */
export async function beginJob(api, verb, request) {
  const plan = await api.post(`/api/actions/${verb}`, request, { query: { plan: true } });
  const key = freshKey();
  askPlan(texts.jobs[verb], plan, async () => {
    const job = await api.post(`/api/actions/${verb}`, request, { key });
    go(href('jobs', job.id));
  });
}

/** @param {import('../app.js').Context} context @param {import('../lib/page.js').Place} place */
export function view(context, place) {
  if (place.id !== null) return Object.assign(h('job-view'), { context, job: place.id });
  return Object.assign(h('operator-jobs-view'), { context, query: place.query });
}
