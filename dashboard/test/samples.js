// Forms and views as the API gives them.

/** @type {(name: string, more: any) => any} */
const field = (name, more) => ({ name, label: name, required: false, secret: false, pattern: '.+', expected: 'expected it', example: '', help: '', help_url: '', ...more });

/** @type {any} */
export const twilio = {
  provider: 'twilio',
  name: 'Twilio',
  connect: 'fields',
  available: true,
  help_url: '',
  one_of: [['auth_token'], ['api_key_sid', 'api_key_secret']],
  fields: [
    field('account_sid', { required: true, pattern: 'AC[0-9a-fA-F]{32}', expected: 'expected AC and 32 hexadecimal digits', example: 'AC0' }),
    field('auth_token', { secret: true, pattern: '[!-~]{1,512}' }),
    field('auth_token_secondary', { secret: true, pattern: '[!-~]{16,512}' }),
    field('api_key_sid', { pattern: 'SK[0-9a-fA-F]{32}' }),
    field('api_key_secret', { secret: true, pattern: '[!-~]{1,512}' }),
    field('phone_number', { pattern: '\\+[1-9][0-9]{7,14}', expected: 'expected E.164', example: '+12025550123' }),
  ],
};

/** @type {any} */
export const google = { provider: 'google_calendar', name: 'Google Calendar', connect: 'oauth', available: true, help_url: '', one_of: [], fields: [] };

/** @type {(more: any) => any} */
export const view = (more) => ({
  id: 'I',
  provider: 'twilio',
  connected: true,
  state: 'connected',
  cause: null,
  error: null,
  missing: null,
  checked_at: null,
  first_failed_at: null,
  next_try_at: null,
  last_used_at: null,
  last_verified_at: null,
  account: null,
  last_four: null,
  settings: {},
  secrets_set: [],
  etag: '"1-a"',
  ...more,
});
