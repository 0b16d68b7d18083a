// Moments as a field of a form has them (local, without a zone) and as addresses and the API have
// them (RFC 3339). Pure.

/** The local text of a moment, for a field of the type `datetime-local`. @param {string | null | undefined} moment */
export function fieldOf(moment) {
  const at = moment ? new Date(moment) : null;
  if (at === null || Number.isNaN(at.getTime())) return '';
  const two = (/** @type {number} */ part) => String(part).padStart(2, '0');
  return `${at.getFullYear()}-${two(at.getMonth() + 1)}-${two(at.getDate())}T${two(at.getHours())}:${two(at.getMinutes())}`;
}

/** The moment that a field means; empty where it holds none. @param {string} field */
export function momentOf(field) {
  const at = field.trim() === '' ? null : new Date(field);
  return at === null || Number.isNaN(at.getTime()) ? '' : at.toISOString().replace('.000Z', 'Z');
}
