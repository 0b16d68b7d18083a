// The states of a connection to a provider, or to a server of the organisation's own.

/** Tone of the badge of each state. @type {Record<string, string>} */
export const TONES = {
  loading: 'quiet',
  not_connected: 'quiet',
  connected: 'good',
  unverified: 'warn',
  limited: 'warn',
  failing: 'bad',
  needs_reconnecting: 'bad',
  undecryptable: 'bad',
};
