// The rows of a list that grows at its beginning while it is read: pure.

/**
 * Puts the newest page in front of what is loaded. Rows that were loaded before are taken as they
 * are now; no row stands twice.
 * @template {{id: string}} Row
 * @param {Row[]} loaded
 * @param {Row[]} newest
 * @param {boolean} isWhole there is no page behind the newest one: what is not in it has gone
 * @returns {{rows: Row[], hasGap: boolean}} `hasGap`: more came than one page holds, so that rows
 * between are missing
 */
export function merged(loaded, newest, isWhole) {
  if (isWhole) return { rows: newest, hasGap: false };
  const fresh = new Map(newest.map((row) => [row.id, row]));
  const known = new Set(loaded.map((row) => row.id));
  const hasGap = loaded.length > 0 && newest.length > 0 && !newest.some((row) => known.has(row.id));
  if (hasGap) return { rows: newest, hasGap };
  const rest = loaded.filter((row) => !fresh.has(row.id));
  // A row of the newest page's span that is not in it any more has left the list (another state).
  const last = newest.at(-1);
  const span = last === undefined ? -1 : loaded.findIndex((row) => row.id === last.id);
  const within = new Set(loaded.slice(0, Math.max(span, 0)).map((row) => row.id));
  return { rows: [...newest, ...rest.filter((row) => !within.has(row.id))], hasGap: false };
}

/**
 * Adds an older page at the end.
 * @template {{id: string}} Row
 * @param {Row[]} loaded
 * @param {Row[]} older
 * @returns {Row[]}
 */
export function extended(loaded, older) {
  const known = new Set(loaded.map((row) => row.id));
  return [...loaded, ...older.filter((row) => !known.has(row.id))];
}
