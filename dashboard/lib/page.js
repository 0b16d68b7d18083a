// Addresses. Every state that is worth a link stands in one: the page in the path, filters in the
// query.

export const BASE = '/dashboard';

/** @typedef {{page: string, id: string | null, query: URLSearchParams}} Place */

/** The place that an address names. @param {{pathname: string, search: string}} location @returns {Place} */
export function placeOf({ pathname, search }) {
  const [page = '', id = null] = pathname.slice(BASE.length).split('/').filter((part) => part !== '').map(decoded);
  return { page: page || 'overview', id, query: new URLSearchParams(search) };
}

/** @param {string} part */
function decoded(part) {
  try {
    return decodeURIComponent(part);
  } catch {
    return part;
  }
}

/**
 * The address of a place.
 * @param {string} page
 * @param {string | null} [id]
 * @param {Record<string, string | null | undefined>} [query]
 */
export function href(page, id, query) {
  const params = new URLSearchParams();
  for (const [name, value] of Object.entries(query ?? {})) if (value) params.set(name, value);
  const text = params.toString();
  return `${BASE}/${page}${id ? `/${encodeURIComponent(id)}` : ''}${text === '' ? '' : `?${text}`}`;
}

/** Goes to an address of this page. @param {string} address @param {{replace?: boolean}} [how] */
export function go(address, { replace = false } = {}) {
  if (replace) history.replaceState(null, '', address);
  else history.pushState(null, '', address);
  window.dispatchEvent(new Event('hookswitch:place'));
}

/**
 * Calls back at each change of the address, also by the browser's back button. Links of this page
 * are followed without loading it again.
 * @param {() => void} changed
 */
export function follow(changed) {
  window.addEventListener('popstate', changed);
  window.addEventListener('hookswitch:place', changed);
  document.addEventListener('click', (event) => {
    if (event.defaultPrevented || event.button !== 0 || event.metaKey || event.ctrlKey || event.shiftKey || event.altKey) return;
    const link = event.target instanceof Element ? event.target.closest('a[href]') : null;
    if (!(link instanceof HTMLAnchorElement) || link.target !== '' || link.origin !== location.origin) return;
    if (link.pathname !== BASE && !link.pathname.startsWith(`${BASE}/`)) return;
    if (link.hash !== '') return;
    event.preventDefault();
    go(link.pathname + link.search);
  });
}

// The server reads both lists from here, a list on each line.

/** Pages of people of an organisation, in the order of the navigation. */
const OF_ORGANISATION = ['overview', 'integrations', 'assistants', 'endpoints', 'rules', 'events', 'actions', 'audit', 'settings'];

/** Pages of operators of the installation. */
const OF_OPERATOR = ['dead-events', 'quarantine', 'pauses', 'jobs', 'keys', 'caches', 'settings'];

/** Whether it is a page at all: its file is `views/` and its name. @param {string} page */
export function isPage(page) {
  return OF_ORGANISATION.includes(page) || OF_OPERATOR.includes(page);
}

/**
 * The pages that a person sees a link to. The first one is where the person begins.
 * @param {string[]} can what the API says that the person may do
 */
export function pagesOf(can) {
  return can.includes('operate') ? OF_OPERATOR : OF_ORGANISATION;
}

/**
 * Whether a place is a page of this person. One job is a page of both; the list is the operators'.
 * @param {Pick<Place, 'page' | 'id'>} place
 * @param {string[]} can
 */
export function isPageOf({ page, id }, can) {
  return pagesOf(can).includes(page) || (page === 'jobs' && id !== null);
}
