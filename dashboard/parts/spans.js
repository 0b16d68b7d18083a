// The choice between the last hour and the last day. Its links stay while their page is read anew,
// so that the keyboard's focus stays on them.

import { h } from '../lib/dom.js';
import { SPANS } from '../lib/overview.js';
import { href } from '../lib/page.js';
import texts from '../texts.js';

/** @typedef {typeof SPANS[number]} Span */

/** @param {string} page */
export function spanLinks(page) {
  const link = (/** @type {Span} */ span) => h('a.button', { href: href(page, null, { span }), 'data-key': `span-${span}` }, texts.overview.spans[span]);
  return h('div.row', { role: 'group', 'aria-label': texts.overview.span }, SPANS.map(link));
}

/** The span that the address names. @param {URLSearchParams} query @param {Span} usual */
export function spanOf(query, usual) {
  return SPANS.find((span) => span === query.get('span')) ?? usual;
}

/** @param {Element} links @param {Span} span */
export function markSpan(links, span) {
  for (const link of links.children) {
    if (link.getAttribute('data-key') === `span-${span}`) link.setAttribute('aria-current', 'true');
    else link.removeAttribute('aria-current');
  }
}
