// Filters above a list. They stand in the address, so that what is seen can be sent as a link.

import { freshId, h } from '../lib/dom.js';
import { go, href } from '../lib/page.js';
import texts from '../texts.js';

/**
 * @typedef {{name: string, label: string, options?: [string, string][], suggestions?: string[], placeholder?: string}} Filter
 */

/**
 * @param {string} page
 * @param {URLSearchParams} query
 * @param {Filter[]} filters
 */
export function filterBar(page, query, filters) {
  /** @type {Map<string, HTMLInputElement | HTMLSelectElement>} */
  const fields = new Map();
  const form = h(
    'form.filters',
    { role: 'search', 'aria-label': texts.lists.filters },
    filters.map((filter) => {
      const id = freshId('filter');
      const value = query.get(filter.name) ?? '';
      const field = filter.options
        ? h('select', { id, name: filter.name }, h('option', { value: '' }, texts.lists.all), filter.options.map(([each, label]) => h('option', { value: each, selected: each === value }, label)))
        : h('input', { id, name: filter.name, type: 'search', value, placeholder: filter.placeholder, autocomplete: 'off', list: filter.suggestions ? `${id}-list` : null });
      fields.set(filter.name, field);
      const list = filter.suggestions && h('datalist', { id: `${id}-list` }, filter.suggestions.map((each) => h('option', { value: each })));
      return h('div', null, h('label', { for: id }, filter.label), field, list);
    }),
    h('button', { type: 'submit' }, texts.lists.filter),
    query.size > 0 && h('a.button', { href: href(page) }, texts.lists.clear),
  );
  const follow = () => {
    const chosen = Object.fromEntries([...fields].map(([name, field]) => [name, field.value.trim()]));
    go(href(page, null, chosen), { replace: true });
  };
  form.addEventListener('submit', (/** @type {Event} */ event) => {
    event.preventDefault();
    follow();
  });
  form.addEventListener('change', follow);
  return form;
}
