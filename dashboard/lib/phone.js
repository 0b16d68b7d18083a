// Telephone numbers while they are typed. A number keeps the country that the person gave it: no
// country's code is ever put in front of a number that has none.

// Calling codes of one and of two digits (ITU-T E.164, list of assigned country codes); all others
// have three.
const ONE = ['1', '7'];
const TWO = (
  '20 27 30 31 32 33 34 36 39 40 41 43 44 45 46 47 48 49 51 52 53 54 55 56 57 58 60 61 62 63 64 65 66 ' +
  '81 82 84 86 90 91 92 93 94 95 98'
).split(' ');

/**
 * The calling code that digits begin with.
 * @param {string} digits
 */
export function callingCode(digits) {
  if (ONE.includes(digits.slice(0, 1))) return digits.slice(0, 1);
  if (TWO.includes(digits.slice(0, 2))) return digits.slice(0, 2);
  return digits.slice(0, 3);
}

/**
 * The number as it is sent: E.164 without blanks, brackets, dots and hyphens. A text that is no
 * number stays as it is.
 * @param {string} text
 */
export function plainNumber(text) {
  const trimmed = text.trim();
  if (!/^\+?[\d\s().\-\u00a0/]*$/.test(trimmed)) return trimmed;
  return trimmed.replace(/[^\d+]/g, '');
}

/**
 * The number in groups. Only a number with a `+` is put in groups.
 * @param {string} text
 */
export function groupedNumber(text) {
  const plain = plainNumber(text);
  if (!/^\+\d+$/.test(plain)) return text;
  const digits = plain.slice(1);
  const code = callingCode(digits);
  const rest = digits.slice(code.length);
  const groups = code === '1' ? [rest.slice(0, 3), rest.slice(3, 6), rest.slice(6)] : inThrees(rest);
  return ['+' + code, ...groups].filter((group) => group !== '').join(' ');
}

/** @param {string} rest */
function inThrees(rest) {
  const groups = [];
  let left = rest;
  while (left.length > 4) {
    groups.push(left.slice(0, 3));
    left = left.slice(3);
  }
  groups.push(left);
  return groups;
}

/**
 * What a field shows after a key was pressed, and where its caret stands: behind the same digit.
 * @param {string} text
 * @param {number} caret
 */
export function typedNumber(text, caret) {
  const grouped = groupedNumber(text);
  if (grouped === text) return { text, caret };
  const before = text.slice(0, caret).replace(/[^\d+]/g, '').length;
  let seen = 0;
  let at = 0;
  while (at < grouped.length && seen < before) {
    if (grouped[at] !== ' ') seen += 1;
    at += 1;
  }
  // At the end of what was typed the caret stands at the end of what is shown.
  return { text: grouped, caret: caret === text.length ? grouped.length : at };
}
