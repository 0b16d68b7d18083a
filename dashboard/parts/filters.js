// Filters above a list. They stand in the address, so that what is seen can be sent as a link.

import { freshId, h } from '../lib/dom.js';
import { fieldOf, momentOf } from '../lib/moment.js';
import { go, href } from '../lib/page.js';
import texts from '../texts.js';

/**
 * @typedef {object} Filter
 * @property {string} name
 * @property {string} label
 * @property {[string, string][]} [options] one of them, or several with `isMany`
 * @property {boolean} [isMany]
 * @property {boolean} [isMoment]
 * @property {string[]} [suggestions]
 * @property {string} [placeholder]
 */

/** From when, and until when. @type {Filter[]} */
export const PERIOD = [
  { name: 'since', label: texts.lists.since, isMoment: true },
  { name: 'until', label: texts.lists.until, isMoment: true },
];

/** Choices of several that are open now: a bar that is drawn anew leaves them open. @type {Set<string>} */
const opened = new Set();

/**
 * @param {string} page
 * @param {URLSearchParams} query
 * @param {Filter[]} filters
 */
export function filterBar(page, query, filters) {
  /** @type {Map<string, () => string>} */
  const values = new Map();
  const form = h(
    'form.filters',
    { role: 'search', 'aria-label': texts.lists.filters },
    filters.map((filter) => {
      const { element, value } = filter.isMany ? choices(page, query, filter) : field(query, filter);
      values.set(filter.name, value);
      return element;
    }),
    h('button', { type: 'submit' }, texts.lists.filter),
    query.size > 0 && h('a.button', { href: href(page) }, texts.lists.clear),
  );
  const follow = () => go(href(page, null, Object.fromEntries([...values].map(([name, value]) => [name, value()]))), { replace: true });
  form.addEventListener('submit', (/** @type {Event} */ event) => {
    event.preventDefault();
    follow();
  });
  // A moment is typed part by part: it counts once it is left, or by the button.
  form.addEventListener('change', (/** @type {any} */ event) => event.target.type === 'datetime-local' || follow());
  form.addEventListener('focusout', (/** @type {any} */ event) => {
    const { type, name, value } = event.target;
    if (type === 'datetime-local' && value !== fieldOf(query.get(name))) follow();
  });
  return form;
}

/** @param {URLSearchParams} query @param {Filter} filter @returns {{element: Element, value: () => string}} */
function field(query, filter) {
  const id = freshId('filter');
  const value = query.get(filter.name) ?? '';
  const common = { id, name: filter.name, 'data-key': `filter-${filter.name}`, autocomplete: 'off' };
  // A value that the options do not have still counts: the address says it.
  const options = filter.options && (value === '' || filter.options.some(([each]) => each === value) ? filter.options : [...filter.options, [value, value]]);
  const input = options
    ? h('select', common, h('option', { value: '' }, texts.lists.all), options.map(([each, label]) => h('option', { value: each, selected: each === value }, label)))
    : filter.isMoment
      ? h('input', { ...common, type: 'datetime-local', value: fieldOf(value) })
      : h('input', { ...common, type: 'search', value, placeholder: filter.placeholder, list: filter.suggestions ? `${id}-list` : null });
  const list = filter.suggestions && h('datalist', { id: `${id}-list` }, filter.suggestions.map((each) => h('option', { value: each })));
  return {
    element: h('div', null, h('label', { for: id }, filter.label), input, list),
    // An untouched moment stays exact: its field has no seconds.
    value: () => (!filter.isMoment ? input.value.trim() : input.value === fieldOf(value) ? value : momentOf(input.value)),
  };
}

/** Several of the options. @param {string} page @param {URLSearchParams} query @param {Filter} filter @returns {{element: Element, value: () => string}} */
function choices(page, query, { name, label, options = [] }) {
  const chosen = (query.get(name) ?? '').split(',').filter((each) => each !== '');
  const key = `${page}-${name}`;
  const boxes = options.map(([each]) => h('input', { type: 'checkbox', name, value: each, checked: chosen.includes(each), 'data-key': `filter-${name}-${each}` }));
  const words = options.filter(([each]) => chosen.includes(each)).map(([, word]) => word);
  const element = h(
    'details.many',
    { open: opened.has(key) },
    h('summary', { 'data-key': `filter-${name}` }, h('span.quiet', null, label, ' '), words.length === 0 ? texts.lists.all : words.join(', ')),
    h('div', { role: 'group', 'aria-label': label }, options.map(([, word], at) => h('label.check', null, boxes[at], word))),
  );
  element.addEventListener('toggle', () => (element.open ? opened.add(key) : opened.delete(key)));
  return { element, value: () => boxes.filter((box) => box.checked).map((box) => box.value).join(',') };
}
