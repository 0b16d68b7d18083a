// A list that is read page by page, and kept true while it is looked at.

import { h, replace } from '../lib/dom.js';
import { extended, merged } from '../lib/rows.js';
import { empty, failure, loading, note } from './bits.js';
import texts from '../texts.js';

const PAGE = 50;

/**
 * A column of rows of one type: `Column<ActionView>`.
 * @template [Row=any]
 * @typedef {{label: string, cell: (row: Row) => any}} Column
 */

export class PagedList extends HTMLElement {
  /** @type {import('../lib/api.js').Api} */
  api = /** @type {any} */ (null);
  path = '';
  label = '';
  /** @type {Record<string, any>} */
  query = {};
  /** @type {Column[]} */
  columns = [];
  /** What stands in the place of no rows. @type {() => any} */
  none = () => empty(texts.lists.none, null);
  /** Told after each reading, also of the parts of the answer beside its rows. @type {(answer: any) => void} */
  read_ = () => {};
  /** The lists of the API by whose changes it is read again. Without one it is polled. @type {string[]} */
  lists = [];
  /** What is drawn now. */
  drawn = '';

  /** @type {any[]} */
  rows = [];
  /** @type {string | null} */
  cursor = null;

  connectedCallback() {
    this.load();
    this.unwatch = this.api.live.watch(this.lists, () => this.again());
  }

  disconnectedCallback() {
    this.unwatch?.();
    this.reading?.abort();
  }

  /** Begins anew with another query. @param {Record<string, any>} query */
  ask(query) {
    this.query = query;
    this.load();
  }

  /** The first page. An answer to an earlier query is dropped. */
  load() {
    this.loaded = this.begin();
    return this.loaded;
  }

  async begin() {
    this.reading?.abort();
    const reading = (this.reading = new AbortController());
    this.setAttribute('data-state', 'loading');
    this.setAttribute('aria-busy', 'true');
    if (this.rows.length === 0) replace(this, loading());
    try {
      const answer = await this.page(null, reading.signal);
      this.rows = answer.data;
      this.cursor = answer.next_cursor;
      this.read_(answer);
      this.draw();
    } catch (error) {
      if (reading.signal.aborted) return;
      this.rows = [];
      this.setAttribute('data-state', 'error');
      replace(this, failure(error, () => this.load()));
    } finally {
      if (!reading.signal.aborted) this.removeAttribute('aria-busy');
    }
  }

  /** @param {string | null} cursor @param {AbortSignal} signal */
  page(cursor, signal) {
    return this.api.get(this.path, { ...this.query, limit: PAGE, cursor }, signal);
  }

  /** A change can come while the first page is under way, which may not have it. */
  async again() {
    await this.loaded;
    await this.refresh();
  }

  /** Reads the newest page again. */
  async refresh() {
    if (document.hidden || !this.isConnected || this.getAttribute('data-state') === 'loading') return;
    const reading = this.reading;
    try {
      const answer = await this.page(null, /** @type {AbortController} */ (reading).signal);
      if (reading?.signal.aborted) return;
      const { rows, hasGap } = merged(this.rows, answer.data, answer.next_cursor === null);
      if (hasGap || rows.length === answer.data.length) this.cursor = answer.next_cursor;
      this.rows = rows;
      this.read_(answer);
      this.isStale = false;
      this.draw();
    } catch {
      if (reading?.signal.aborted) return;
      this.isStale = true;
      this.draw();
    }
  }

  async more() {
    const reading = /** @type {AbortController} */ (this.reading);
    try {
      const answer = await this.page(this.cursor, reading.signal);
      this.rows = extended(this.rows, answer.data);
      this.cursor = answer.next_cursor;
      this.problem = null;
      this.read_(answer);
    } catch (error) {
      if (reading.signal.aborted) return;
      this.problem = /** @type {Error} */ (error).message;
    }
    this.draw();
  }

  /** Draws again although the rows are the same. */
  redraw() {
    this.drawn = '';
    this.draw();
  }

  draw() {
    const drawn = JSON.stringify([this.rows, this.cursor, this.isStale, this.problem]);
    this.setAttribute('data-state', this.rows.length === 0 ? 'empty' : 'ready');
    if (drawn === this.drawn && this.querySelector('table, .empty')) return;
    this.drawn = drawn;
    if (this.rows.length === 0) {
      replace(this, this.isStale && note('warn', texts.lists.stale), this.none());
      return;
    }
    replace(
      this,
      this.isStale && note('warn', texts.lists.stale),
      h(
        'table',
        { 'aria-label': this.label },
        h('thead', null, h('tr', null, this.columns.map(({ label }) => h('th', { scope: 'col' }, label)))),
        h(
          'tbody',
          null,
          this.rows.map((row) => h('tr', { 'data-id': row.id ?? null }, this.columns.map(({ label, cell }) => h('td', { 'data-label': label }, h('div', null, cell(row)))))),
        ),
      ),
      this.problem && note('bad', this.problem),
      this.cursor && h('button', { type: 'button', 'data-key': 'more', onclick: () => this.more() }, texts.bits.more),
    );
  }
}
customElements.define('paged-list', PagedList);

/** @param {Partial<PagedList>} settings @returns {PagedList} */
export function pagedList(settings) {
  return Object.assign(/** @type {PagedList} */ (h('paged-list')), settings);
}
