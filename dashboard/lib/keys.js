// How far the change of the key-encryption key is. Pure.

/**
 * @typedef {Pick<import('../types/api.d.ts').KeyView, 'key' | 'is_primary' | 'instances' | 'data_keys' | 'events' | 'may_leave'>} Key
 */

/**
 * @param {{primary?: string | null, keys: Key[], instances: unknown[]}} view
 * @returns {{state: 'none' | 'whole' | 'moving', total: number, done: number, left: number, events: number}}
 * `none`: no process has reported yet; `moving`: something is still sealed under another key.
 * `events` wait or are dead under another key: they are not sealed again, and leave by themselves.
 */
export function rotation({ primary, keys }) {
  const total = keys.reduce((sum, key) => sum + key.data_keys, 0);
  const done = keys.filter((key) => key.is_primary).reduce((sum, key) => sum + key.data_keys, 0);
  const events = keys.filter((key) => !key.is_primary).reduce((sum, key) => sum + key.events, 0);
  const left = total - done;
  return { state: !primary ? 'none' : left + events > 0 ? 'moving' : 'whole', total, done, left, events };
}

/**
 * The state of one key: `primary`; `missing` where a process lacks it and something needs
 * it; `leave` where nothing needs it; `needed` else.
 * @param {Key} key
 * @param {number} instances how many processes there are
 */
export function roleOf(key, instances) {
  if (!key.may_leave && key.instances < instances) return 'missing';
  if (key.is_primary) return 'primary';
  return key.may_leave ? 'leave' : 'needed';
}
