// The frame around the pages: who is signed in, where the address points, and what the network does.

import { Api, ApiError } from './lib/api.js';
import { h, replace } from './lib/dom.js';
import { follow, go, href, isPage, isPageOf, pagesOf, placeOf } from './lib/page.js';
import { Session } from './lib/session.js';
import { failure, loading, note } from './parts/bits.js';
import texts from './texts.js';

/**
 * @typedef {object} Context what every page gets
 * @property {Api} api
 * @property {Session} session
 * @property {() => void} start shows the page that the address names
 */

/**
 * The file of a page. It is loaded when the page is first opened.
 * @param {string} page one of `lib/page.js`
 * @returns {Promise<{view: (context: Context, place: import('./lib/page.js').Place) => HTMLElement, READS?: string[]}>}
 */
function fileOf(page) {
  return import(`./views/${page}.js`);
}

// What went wrong in the page itself. The browser tests hold this list against emptiness.
/** @type {string[]} */
const faults = [];
Object.defineProperty(window, 'hookswitchFaults', { value: faults });
window.addEventListener('error', (event) => faults.push(`error: ${event.message}`));
window.addEventListener('unhandledrejection', (event) => faults.push(`rejection: ${event.reason}`));
document.addEventListener('securitypolicyviolation', (event) => faults.push(`policy: ${event.violatedDirective} ${event.blockedURI}`));

const api = new Api();
const session = new Session(api);
const content = /** @type {HTMLElement} */ (document.getElementById('content'));
const top_ = /** @type {HTMLElement} */ (document.getElementById('top'));
const nav = /** @type {HTMLElement} */ (document.getElementById('pages'));
/** @type {Context} */
const context = { api, session, start: show };
/** Counts the openings of pages, so that a page that loads slowly does not show up over a later one. */
let opening = 0;
/** @type {import('./lib/page.js').Place | null} */
let shown = null;

api.onExpired = () => {
  if (session.me === null) return;
  session.forget();
  askForToken(texts.signIn.expired);
};

function frame() {
  const { me } = session;
  // Operators have no organisation whose lists could change.
  api.live.allow(session.can('read'));
  const current = placeOf(location).page;
  replace(
    top_,
    h('a.brand', { href: href(me === null ? 'overview' : pagesOf(me.can)[0]) }, texts.brand),
    me?.organisation ? h('span.organisation', null, me.organisation.name ?? me.organisation.id) : null,
    me?.role ? h('span.quiet', null, texts.roles[me.role] ?? me.role) : null,
    me === null ? null : h('button.small', { type: 'button', onclick: signOut, 'data-key': 'sign-out' }, texts.signIn.signOut),
  );
  replace(
    nav,
    me === null ? null : pagesOf(me.can).map((page) => h('a', { href: href(page), 'aria-current': page === current ? 'page' : null }, texts.pages[page])),
  );
  // On a phone the list of pages is wider than the window. Where it stands is known with the frame.
  requestAnimationFrame(() => {
    const here = /** @type {HTMLElement | null} */ (nav.querySelector('[aria-current]'));
    if (here !== null) nav.scrollLeft = here.offsetLeft - (nav.clientWidth - here.offsetWidth) / 2;
  });
}

async function signOut() {
  await session.end().catch(() => {});
  askForToken(texts.signIn.signedOut);
}

/** @param {string | null} why */
async function askForToken(why) {
  opening += 1;
  const own = opening;
  shown = null;
  for (const dialog of document.querySelectorAll('dialog')) dialog.close();
  frame();
  document.title = texts.title(texts.signIn.title);
  content.dataset.state = 'sign-in';
  replace(content, loading());
  try {
    const { signIn } = await import('./views/sign-in.js');
    if (own === opening) replace(content, signIn(context, why));
  } catch (error) {
    if (own === opening) unread(error, () => askForToken(why));
  }
}

/**
 * A part of the page that could not be read, or that failed.
 * @param {unknown} error
 * @param {() => void} retry
 */
function unread(error, retry) {
  content.dataset.state = 'error';
  const isUnread = error instanceof TypeError;
  // A part that is not served any more: another version is being served now.
  if (isUnread && navigator.onLine) {
    replace(content, note('warn', texts.bits.newVersion, ' ', h('button', { type: 'button', onclick: () => location.reload() }, texts.bits.reload)));
  } else {
    replace(content, failure(isUnread ? new ApiError(0, 'offline', {}) : error, retry));
  }
}

async function show() {
  if (session.me === null) return askForToken(null);
  opening += 1;
  const own = opening;
  const place = placeOf(location);
  // The dashboard without a page begins at the first page of the person.
  const [first] = pagesOf(session.me.can);
  if (place.page === 'overview' && first !== 'overview') return go(href(first), { replace: true });
  const isSame = shown !== null && shown.page === place.page && shown.id === place.id && place.id === null;
  const current = /** @type {any} */ (content.firstElementChild);
  shown = place;
  if (isSame && current?.placeChanged) return current.placeChanged(place);
  frame();
  for (const dialog of document.querySelectorAll('dialog')) dialog.close();
  document.title = texts.title(texts.pages[place.page] ?? texts.errors.notFound);
  if (!isPageOf(place, session.me.can)) {
    content.dataset.state = 'missing';
    replace(content, h('div.empty', null, h('h1', { tabindex: '-1' }, texts.errors.notFound), h('a', { href: href(first) }, texts.errors.toStart)));
    return;
  }
  const timer = setTimeout(() => replace(content, loading()), 150);
  try {
    const { view } = await fileOf(place.page);
    if (own !== opening) return;
    replace(content, view(context, place));
    content.dataset.state = 'ready';
    // The page that the browser has opened begins at its top by itself.
    if (own > 1) {
      content.querySelector('h1')?.focus({ preventScroll: true });
      window.scrollTo(0, 0);
    }
  } catch (error) {
    if (own === opening) unread(error, show);
  } finally {
    clearTimeout(timer);
  }
}

/** The strip that says that the browser is offline. */
function network() {
  document.getElementById('offline')?.remove();
  if (!navigator.onLine) document.body.prepend(h('div.offline', { id: 'offline', role: 'status' }, texts.errors.offlineNow));
}

/**
 * The browser gives an answer that the document asked for to the first request for it. One that was
 * refused because nobody was signed in is taken out here, before somebody is.
 * @param {string[]} paths
 */
function forgetReads(paths) {
  for (const path of paths) fetch(path).catch(() => {});
}

async function begin() {
  api.live.show(!document.hidden);
  document.addEventListener('visibilitychange', () => api.live.show(!document.hidden));
  window.addEventListener('online', () => api.live.online());
  window.addEventListener('online', network);
  window.addEventListener('offline', network);
  network();
  // The document shows the same.
  if (content.querySelector('.loading') === null) replace(content, loading());
  // The page is fetched while the API says who is signed in.
  const { page: name } = placeOf(location);
  const page = isPage(name) ? fileOf(name).catch(() => null) : null;
  try {
    if (!(await session.resume())) forgetReads((await page)?.READS ?? []);
    follow(show);
    show();
  } catch (error) {
    content.dataset.state = 'error';
    replace(content, failure(error, begin));
  }
}

begin();
