// Addresses.

import test from 'node:test';
import assert from 'node:assert/strict';
import { follow, go, href, isPage, isPageOf, pagesOf, placeOf } from '../lib/page.js';

test('an address is read as it was written', () => {
  /** @type {[string, string, string | null, Record<string, string>][]} */
  const table = [
    ['/dashboard', 'overview', null, {}],
    ['/dashboard/', 'overview', null, {}],
    ['/dashboard/events?source=vapi', 'events', null, { source: 'vapi' }],
    ['/dashboard/rules/new?ready=crm', 'rules', 'new', { ready: 'crm' }],
    ['/dashboard/events/a%20b', 'events', 'a b', {}],
    ['/dashboard/events/%E0%A4%A', 'events', '%E0%A4%A', {}],
  ];
  for (const [address, page, id, query] of table) {
    const place = placeOf(new URL(address, 'http://x'));
    assert.deepEqual([place.page, place.id, Object.fromEntries(place.query)], [page, id, query], address);
  }
  assert.equal(href('events', 'a b', { source: 'vapi', type: '' }), '/dashboard/events/a%20b?source=vapi');
  assert.equal(href('rules'), '/dashboard/rules');
});

test('an address that is no page names no file', () => {
  for (const page of ['overview', 'settings', 'caches']) assert.ok(isPage(page), page);
  for (const page of ['kept', 'hours', 'sign-in', '../app', 'constructor', '']) assert.ok(!isPage(page), page);
});

test('each person has pages of their own, and one job is a page of both', () => {
  const [person, operator] = [['read', 'retry'], ['operate']];
  assert.deepEqual([pagesOf(person)[0], pagesOf(operator)[0]], ['overview', 'dead-events']);
  /** @type {[string, string | null, boolean, boolean][]} */
  const table = [
    ['events', null, true, false],
    ['events', 'one', true, false],
    ['jobs', null, false, true],
    ['jobs', 'one', true, true],
    ['settings', null, true, true],
    ['nowhere', null, false, false],
  ];
  for (const [page, id, isOfPerson, isOfOperator] of table) {
    assert.deepEqual([isPageOf({ page, id }, person), isPageOf({ page, id }, operator)], [isOfPerson, isOfOperator], `${page} ${id}`);
  }
});

/** A browser of which only the history and the listeners are there. @param {import('node:test').TestContext} t */
function browser(t) {
  class Element {
    /** @param {any} link */
    constructor(link) {
      this.link = link;
    }
    closest(/** @type {string} */ selector) {
      assert.equal(selector, 'a[href]');
      return this.link;
    }
  }
  class HTMLAnchorElement extends Element {
    /** @param {Record<string, string>} parts */
    constructor(parts) {
      super(null);
      this.link = this;
      Object.assign(this, { target: '', origin: 'http://x', pathname: '/dashboard/events', search: '?a=1', hash: '', ...parts });
    }
  }
  /** @type {[string, string][]} */
  const visited = [];
  const history = {
    pushState: (/** @type {any} */ _state, /** @type {string} */ _title, /** @type {string} */ to) => visited.push(['push', to]),
    replaceState: (/** @type {any} */ _state, /** @type {string} */ _title, /** @type {string} */ to) => visited.push(['replace', to]),
  };
  /** @type {(event: any) => void} */
  let clicked = () => assert.fail('nobody listens');
  const document = { addEventListener: (/** @type {string} */ type, /** @type {any} */ heard) => type === 'click' && (clicked = heard) };
  const globals = { window: new EventTarget(), document, history, location: { origin: 'http://x' }, Element, HTMLAnchorElement };
  Object.assign(globalThis, globals);
  t.after(() => Object.keys(globals).forEach((name) => delete (/** @type {any} */ (globalThis)[name])));
  const click = (/** @type {any} */ target, more = {}) => {
    let isTaken = false;
    clicked({ target, button: 0, defaultPrevented: false, preventDefault: () => (isTaken = true), ...more });
    return isTaken;
  };
  return { visited, click, Element, HTMLAnchorElement };
}

test('the address changes without a load, and the page hears of it', (t) => {
  const { visited } = browser(t);
  let changes = 0;
  follow(() => (changes += 1));
  go('/dashboard/events');
  go('/dashboard/rules', { replace: true });
  window.dispatchEvent(new Event('popstate'));
  assert.deepEqual([visited, changes], [[['push', '/dashboard/events'], ['replace', '/dashboard/rules']], 3]);
});

test('a link of this page is followed here, every other click is left to the browser', (t) => {
  const { visited, click, Element, HTMLAnchorElement } = browser(t);
  follow(() => {});
  const link = (parts = {}) => new HTMLAnchorElement(parts);
  assert.ok(click(link()));
  assert.ok(click(link({ pathname: '/dashboard', search: '' })));
  assert.ok(click(new Element(link({ search: '' }))), 'a part of a link');
  assert.deepEqual(visited.splice(0).map(([, to]) => to), ['/dashboard/events?a=1', '/dashboard', '/dashboard/events']);
  for (const more of [{ defaultPrevented: true }, { button: 1 }, { metaKey: true }, { ctrlKey: true }, { shiftKey: true }, { altKey: true }]) {
    assert.ok(!click(link(), more), JSON.stringify(more));
  }
  for (const parts of [{ target: '_blank' }, { origin: 'http://y' }, { pathname: '/api/me' }, { pathname: '/dashboards' }, { hash: '#content' }]) {
    assert.ok(!click(link(parts)), JSON.stringify(parts));
  }
  assert.ok(!click(new Element(null)), 'no link');
  assert.ok(!click(new Element(new Element(null))), 'a link of a drawing');
  assert.ok(!click({}), 'no element');
  assert.deepEqual(visited, []);
});
