// A field for a telephone number: what is typed is put in groups, and the caret stays.

import { typedNumber } from '../lib/phone.js';

/** @param {HTMLInputElement} input */
export function groupWhileTyping(input) {
  input.addEventListener('input', () => {
    const typed = typedNumber(input.value, input.selectionStart ?? input.value.length);
    if (typed.text === input.value) return;
    input.value = typed.text;
    input.setSelectionRange(typed.caret, typed.caret);
  });
}
