// Elements from data. A text is always a text node: nothing here makes HTML from a string, and the
// page's policy forbids it.

/**
 * A node, a text, nothing, or a list of them.
 * @typedef {Node | string | number | null | undefined | false | any[]} Child
 */

const SVG = 'http://www.w3.org/2000/svg';

/**
 * An element: `h('p.hint', {id: 'a'}, 'text')`. A property that begins with `on` is a listener; one
 * that is `true` is an attribute without a value; `null`, `undefined` and `false` leave it out.
 * @param {string} tag the name, then `.class` parts
 * @param {Record<string, any> | null} [properties]
 * @param {...Child} children
 * @returns {any}
 */
export function h(tag, properties, ...children) {
  const [name, ...classes] = tag.split('.');
  return fill(document.createElement(name), classes, properties, children);
}

/**
 * An element of a drawing.
 * @param {string} tag
 * @param {Record<string, any> | null} [properties]
 * @param {...Child} children
 * @returns {any}
 */
export function svg(tag, properties, ...children) {
  const [name, ...classes] = tag.split('.');
  return fill(document.createElementNS(SVG, name), classes, properties, children);
}

/**
 * @param {Element} element
 * @param {string[]} classes
 * @param {Record<string, any> | null | undefined} properties
 * @param {Child[]} children
 */
function fill(element, classes, properties, children) {
  if (classes.length) element.setAttribute('class', classes.join(' '));
  for (const [key, value] of Object.entries(properties ?? {})) {
    if (value === null || value === undefined || value === false) continue;
    if (key.startsWith('on')) element.addEventListener(key.slice(2), value);
    else if (key === 'value') /** @type {any} */ (element).value = value;
    else element.setAttribute(key, value === true ? '' : String(value));
  }
  append(element, children);
  return element;
}

/**
 * @param {Node} to
 * @param {Child} child
 */
export function append(to, child) {
  if (Array.isArray(child)) for (const each of child) append(to, each);
  else if (child instanceof Node) to.appendChild(child);
  else if (child !== null && child !== undefined && child !== false) {
    to.appendChild(document.createTextNode(String(child)));
  }
}

/**
 * Puts children in the place of those that an element has. The focus stays on the element of the
 * same `data-key`, where there is one.
 * @param {Element} element
 * @param {...Child} children
 */
export function replace(element, ...children) {
  const active = document.activeElement;
  const key = active && element.contains(active) ? active.getAttribute('data-key') : null;
  element.replaceChildren();
  append(element, children);
  if (key === null) return;
  for (const each of element.querySelectorAll('[data-key]')) {
    if (each.getAttribute('data-key') === key) /** @type {HTMLElement} */ (each).focus();
  }
}

/** Until what stands on the page now is seen. A hidden page draws nothing. @returns {Promise<void>} */
export function painted() {
  return new Promise((resolve) => {
    if (document.hidden) setTimeout(resolve);
    else requestAnimationFrame(() => setTimeout(resolve));
  });
}

let ids = 0;

/**
 * An id for `for` and `aria-describedby`.
 * @param {string} prefix
 */
export function freshId(prefix) {
  ids += 1;
  return `${prefix}-${ids}`;
}
