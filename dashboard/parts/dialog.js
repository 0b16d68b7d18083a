// Modal dialogs. The browser keeps the focus inside, closes by Escape, and gives the focus back.

import { freshId, h } from '../lib/dom.js';
import texts from '../texts.js';

/**
 * Opens a dialog. The element is a child of the page's body while it is open.
 * @param {object} parts
 * @param {string} parts.title
 * @param {any} parts.body
 * @param {() => boolean} [parts.mayClose] asked before Escape or the button closes it
 * @param {() => void} [parts.closed]
 * @param {string} [parts.kind] an extra class
 * @returns {{element: HTMLDialogElement, close: () => void}}
 */
export function openDialog({ title, body, mayClose = () => true, closed = () => {}, kind = '' }) {
  const id = freshId('dialog');
  const before = document.activeElement;
  /** @type {HTMLDialogElement} */
  const element = h(
    `dialog${kind && `.${kind}`}`,
    { 'aria-labelledby': id },
    h(
      'header',
      null,
      h('h2', { id }, title),
      h('button.small.quiet', { type: 'button', 'aria-label': texts.bits.close, onclick: () => mayClose() && element.close() }, '×'),
    ),
    body,
  );
  element.addEventListener('cancel', (event) => {
    if (!mayClose()) event.preventDefault();
  });
  element.addEventListener('close', () => {
    element.remove();
    closed();
    // A card that was drawn anew has another button of the same key, or at least one of the same
    // provider.
    const key = before?.getAttribute('data-key');
    const find = (/** @type {string} */ selector) => document.querySelector(selector);
    const back = before?.isConnected ? before : key && (find(`[data-key="${key}"]`) ?? find(`[data-key^="${key.split('-')[0]}-"]`));
    (/** @type {HTMLElement | null} */ (back) ?? document.getElementById('content'))?.focus();
  });
  document.body.append(element);
  element.showModal();
  return { element, close: () => element.close() };
}
