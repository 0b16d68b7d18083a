// The state machine of a card, as tables.

import test from 'node:test';
import assert from 'node:assert/strict';
import { card, model, next } from '../lib/card.js';
import { twilio, google, view } from './samples.js';

/** @param {any[]} events @param {any} [from] */
const after = (events, from = card(twilio)) => events.reduce(next, from);
const loaded = (/** @type {any} */ stored) => ({ type: 'status', ticket: 0, stored });
const typed = [
  { type: 'input', name: 'account_sid', value: 'AC' + '0'.repeat(32) },
  { type: 'input', name: 'auth_token', value: 'token' },
];
const OWNER = { manage: true, connect: true };
const ADMIN = { manage: true, connect: false };
const VIEWER = { manage: false, connect: false };
const error = (/** @type {any} */ more) => ({ code: 'refused_by_provider', message: 'No.', errors: [], ...more });

test('each state has a badge, a tone and the buttons that help', () => {
  /** @type {[string, string, string[]][]} */
  const table = [
    ['not_connected', 'quiet', ['open']],
    ['connected', 'good', ['verify', 'open', 'ask']],
    ['unverified', 'warn', ['verify', 'open', 'ask']],
    ['limited', 'warn', ['verify', 'open', 'ask']],
    ['failing', 'bad', ['verify', 'open', 'ask']],
    ['needs_reconnecting', 'bad', ['open', 'verify', 'ask']],
    ['undecryptable', 'bad', ['open', 'ask']],
  ];
  for (const [state, tone, buttons] of table) {
    const shown = model(after([loaded(view({ state }))]), OWNER);
    assert.equal(shown.tone, tone, state);
    assert.notEqual(shown.badge, state, `${state} has words of its own`);
    assert.deepEqual(shown.buttons.map((button) => button.name), buttons, state);
    const names = (/** @type {typeof OWNER} */ may, form = twilio) => model(after([loaded(view({ state }))], card(form)), may).buttons.map((button) => button.name);
    assert.deepEqual(names(VIEWER), [], `${state}: a viewer has no button`);
    for (const form of [twilio, google]) assert.deepEqual(names(ADMIN, form), buttons.filter((name) => name === 'verify'), `${state}: an admin checks`);
  }
});

test('the role that may not connect is told who may', () => {
  const shown = (/** @type {any} */ more, /** @type {typeof OWNER} */ may) => model(after([loaded(view(more))]), may);
  for (const state of ['needs_reconnecting', 'undecryptable']) {
    assert.match(shown({ state }, ADMIN).advice ?? '', /owner/, state);
    assert.doesNotMatch(shown({ state }, OWNER).advice ?? '', /owner/, state);
  }
  assert.match(shown({ state: 'failing' }, ADMIN).advice ?? '', /Check it now/);
  assert.match(shown({ rotation_due: true }, ADMIN).due ?? '', /owner/);
  assert.doesNotMatch(shown({ rotation_due: true }, OWNER).due ?? '', /owner/);
});

test('a state that this page does not know is shown by its name', () => {
  assert.equal(model(after([loaded(view({ state: 'sleeping' }))]), OWNER).badge, 'sleeping');
});

test('before the first answer a card is loading and has no button', () => {
  const shown = model(card(twilio), OWNER);
  assert.equal(shown.state, 'loading');
  assert.deepEqual(shown.buttons, []);
});

test('a failing card says since when, when it is tried next, and what the provider said', () => {
  const shown = model(
    after([loaded(view({ state: 'failing', cause: 'provider_unavailable', error: { message: 'Try later', http_status: 503, code: null }, first_failed_at: 'A', next_try_at: 'B' }))]),
    OWNER,
  );
  assert.deepEqual(shown.facts.filter((fact) => fact.time), [{ key: 'since', time: 'A' }, { key: 'nextTry', time: 'B' }]);
  assert.equal(shown.words, 'Try later (HTTP 503)');
  assert.ok(shown.cause && shown.advice && shown.lead);
});

test('what a limited credential cannot do is said', () => {
  assert.deepEqual(model(after([loaded(view({ state: 'limited', missing: 'reading domains' }))]), OWNER).missing, ['reading domains']);
});

test('an installation without a client of Google offers no button, and says why', () => {
  const shown = model(after([loaded(view({ state: 'not_connected' }))], card({ ...google, available: false })), OWNER);
  assert.deepEqual(shown.buttons, []);
  assert.ok(shown.unavailable);
});

test('opening fills in what is no secret', () => {
  const stored = view({ settings: { account_sid: 'AC' + '1'.repeat(32), phone_number: '+15552010100' }, secrets_set: ['auth_token'] });
  const { opened } = after([loaded(stored), { type: 'open' }]);
  assert.equal(opened.values.phone_number, '+15552010100');
  assert.equal(opened.values.auth_token, '');
});

test('a test with wrong fields asks nobody, and names each field', () => {
  const state = after([loaded(view({ state: 'not_connected' })), { type: 'open' }, { type: 'test' }]);
  assert.equal(state.opened.phase, 'editing');
  assert.deepEqual(Object.keys(state.opened.errors), ['account_sid', 'auth_token']);
});

test('a field is called wrong when it is left, not while it is typed', () => {
  const half = after([loaded(null), { type: 'open' }, { type: 'input', name: 'account_sid', value: 'AC12' }]);
  assert.deepEqual(half.opened.errors, {});
  const left = next(half, { type: 'left', name: 'account_sid' });
  assert.match(left.opened.errors.account_sid, /32/);
  const again = next(left, { type: 'input', name: 'account_sid', value: 'AC123' });
  assert.deepEqual(again.opened.errors, {}, 'typing takes the error away');
  assert.deepEqual(next(after([loaded(null), { type: 'open' }]), { type: 'left', name: 'account_sid' }).opened.errors, {}, 'an empty field is no error yet');
});

test('the answer to a test is dropped once a field has changed', () => {
  const asked = after([loaded(null), { type: 'open' }, ...typed, { type: 'test' }]);
  assert.equal(asked.opened.phase, 'testing');
  const changed = next(asked, { type: 'input', name: 'auth_token', value: 'other' });
  assert.equal(changed.opened.phase, 'editing');
  const answered = next(changed, { type: 'tested', ticket: asked.ticket, tested: { state: 'connected' } });
  assert.equal(answered.opened.tested, null);
  const refused = next(changed, { type: 'refused', ticket: asked.ticket, error: error({}) });
  assert.equal(refused.opened.refusal, null);
});

test('a good test is forgotten when a field changes', () => {
  const asked = after([loaded(null), { type: 'open' }, ...typed, { type: 'test' }]);
  const good = next(asked, { type: 'tested', ticket: asked.ticket, tested: { state: 'connected' } });
  assert.equal(good.opened.tested.state, 'connected');
  assert.equal(next(good, { type: 'input', name: 'auth_token', value: 'x' }).opened.tested, null);
});

test('the answer to a test of a closed form is dropped, also when the form is open again', () => {
  const asked = after([loaded(null), { type: 'open' }, ...typed, { type: 'test' }]);
  const again = after([{ type: 'close' }, { type: 'open' }], asked);
  const answered = next(again, { type: 'tested', ticket: asked.ticket, tested: { state: 'connected' } });
  assert.equal(answered.opened.tested, null);
  assert.equal(answered.opened.phase, 'editing');
});

test('while it saves a form takes no input, does not close, and saves once', () => {
  const saving = after([loaded(null), { type: 'open' }, ...typed, { type: 'save' }]);
  assert.equal(saving.opened.phase, 'saving');
  for (const event of [{ type: 'input', name: 'auth_token', value: 'x' }, { type: 'close' }, { type: 'save' }, { type: 'way', way: 1 }]) {
    assert.equal(next(saving, event), saving, event.type);
  }
});

test('what was saved is shown, and the form closes', () => {
  const saving = after([loaded(null), { type: 'open' }, ...typed, { type: 'save' }]);
  const saved = next(saving, { type: 'saved', ticket: saving.ticket, stored: view({ state: 'limited' }) });
  assert.equal(saved.opened, null);
  assert.equal(saved.stored.state, 'limited');
  assert.equal(saved.said.kind, 'good');
  const warned = next(saving, { type: 'saved', ticket: saving.ticket, stored: view({ warnings: [{ field: 'phone_number', problem: 'is not of this account' }] }) });
  assert.deepEqual(warned.said, { kind: 'warn', text: 'Twilio is saved. phone_number: Is not of this account.' });
});

test('a refused save stays open, with errors at their fields and the words of the provider', () => {
  const saving = after([loaded(null), { type: 'open' }, ...typed, { type: 'save' }]);
  const refused = next(saving, {
    type: 'refused',
    ticket: saving.ticket,
    error: error({
      errors: [{ field: 'auth_token', problem: 'is not the token of this account' }, { field: 'elsewhere', problem: 'x' }],
      provider: { http_status: 401, code: '20003', message: 'Authenticate' },
    }),
  });
  assert.equal(refused.opened.phase, 'editing');
  assert.deepEqual(refused.opened.errors, { auth_token: 'Is not the token of this account.' });
  assert.equal(refused.opened.refusal.provider, 'Authenticate (HTTP 401, code 20003)');
  assert.equal(refused.opened.values.auth_token, 'token', 'nothing that was typed is lost');
  const asked = after([loaded(null), { type: 'open' }, ...typed, { type: 'test' }]);
  const tested = next(asked, { type: 'tested', ticket: asked.ticket, tested: { state: 'connected' } });
  assert.equal(tested.opened.tested.state, 'connected');
  const saved = next(tested, { type: 'save' });
  const differs = next(saved, { type: 'refused', ticket: saved.ticket, error: error({ code: 'account_differs' }) });
  assert.deepEqual([differs.opened.tested, differs.opened.refusal.code], [null, 'account_differs'], 'the refusal takes the place of the test');
});

test('a status that was read before a change is dropped', () => {
  const before = after([loaded(view({ state: 'not_connected' }))]);
  const saving = after([{ type: 'open' }, ...typed, { type: 'save' }], before);
  const saved = next(saving, { type: 'saved', ticket: saving.ticket, stored: view({ state: 'connected' }) });
  const late = next(saved, { type: 'status', ticket: before.ticket, stored: view({ state: 'not_connected' }) });
  assert.equal(late.stored.state, 'connected');
  const fresh = next(saved, { type: 'status', ticket: saved.ticket, stored: view({ state: 'failing' }) });
  assert.equal(fresh.stored.state, 'failing');
});

test('a status that comes while a question is under way is dropped', () => {
  const busy = after([loaded(view({})), { type: 'verify' }]);
  assert.equal(next(busy, { type: 'status', ticket: busy.ticket, stored: view({ state: 'failing' }) }), busy);
});

test('a status does not touch what is typed', () => {
  const opened = after([loaded(view({})), { type: 'open' }, ...typed]);
  const read = next(opened, { type: 'status', ticket: opened.ticket, stored: view({ state: 'failing' }) });
  assert.equal(read.opened, opened.opened);
});

test('a disconnect asks first, and stands only after its answer', () => {
  const ready = after([loaded(view({}))]);
  assert.equal(next(ready, { type: 'disconnect' }), ready, 'nothing without the question');
  const asking = next(ready, { type: 'ask' });
  assert.equal(asking.asking, true);
  assert.equal(next(asking, { type: 'keep' }).asking, false);
  const busy = next(asking, { type: 'disconnect' });
  assert.equal(busy.busy, 'disconnecting');
  assert.equal(busy.stored.state, 'connected');
  const gone = next(busy, { type: 'disconnected', ticket: busy.ticket, stored: view({ state: 'not_connected' }) });
  assert.deepEqual([gone.busy, gone.asking, gone.stored.state], [null, false, 'not_connected']);
  const failed = next(busy, { type: 'refused', ticket: busy.ticket, error: error({ message: 'Away.' }) });
  assert.deepEqual([failed.busy, failed.asking, failed.said.text], [null, false, 'Away.']);
});

test('a check that finds a fault says nothing good', () => {
  const busy = after([loaded(view({})), { type: 'verify' }]);
  assert.equal(next(busy, { type: 'verified', ticket: busy.ticket, stored: view({ state: 'needs_reconnecting' }) }).said, null);
  assert.equal(next(busy, { type: 'verified', ticket: busy.ticket, stored: view({}) }).said.kind, 'good');
});

test('a check that the provider did not answer says so, and when to try again', () => {
  const busy = after([loaded(view({})), { type: 'verify' }]);
  const at = '2026-01-01T00:00:30.000000Z';
  const checked = (/** @type {string} */ state, /** @type {string} */ cause) =>
    next(busy, { type: 'verified', ticket: busy.ticket, stored: view({ state, not_checked: { cause, detail: '', http_status: null, code: null, try_again_at: at } }) });
  const waits = checked('connected', 'rate_limited');
  assert.deepEqual([waits.busy, waits.said.kind, waits.said.again], [null, 'warn', at]);
  assert.match(waits.said.text, /Not checked: Twilio asks to wait/);
  assert.equal(model(waits, true).state, 'connected');
  const away = checked('failing', 'connect_failed');
  assert.deepEqual([away.said.kind, away.said.again], ['warn', at]);
  assert.match(away.said.text, /Not checked: Twilio gave no answer/);
  // The status that is read behind it takes none of that away.
  const read = next(waits, { type: 'status', ticket: waits.ticket, stored: view({ state: 'limited' }) });
  assert.deepEqual([read.said, read.stored.state], [waits.said, 'limited']);
  assert.equal(next(read, { type: 'verify' }).said, null);
});

test('two cards share nothing', () => {
  const one = after([loaded(view({})), { type: 'open' }, ...typed, { type: 'save' }]);
  const other = after([loaded(view({ state: 'not_connected' }))], card(google));
  assert.equal(other.opened, null);
  assert.equal(one.opened.phase, 'saving');
});

test('an event that does not exist is a fault of the page', () => {
  assert.throws(() => next(card(twilio), { type: 'nonsense' }));
});

test('a card says the age of its secret, and when another one is due', () => {
  const shown = (/** @type {any} */ more) => model({ ...card(twilio), stored: view(more) }, OWNER);
  const age = (/** @type {any} */ more) => shown(more).facts.find((fact) => fact.key === 'age')?.text;
  assert.equal(age({}), undefined, 'an API that does not say it');
  assert.equal(age({ age_days: 1, rotate_after_days: 0 }), '1 day');
  assert.equal(age({ age_days: 91, rotate_after_days: 90 }), '91 days; another one is due after 90');
  assert.equal(shown({ age_days: 91, rotate_after_days: 90 }).due, null, 'the API says whether it is due');
  assert.match(shown({ rotation_due: true }).due ?? '', /Another secret is due/);
  assert.equal(shown({ rotation_due: true, state: 'not_connected' }).due, null);
});

test('a form begins clean, and ends what the card said and asked', () => {
  const asking = { ...after([loaded(view({ state: 'not_connected' })), { type: 'ask' }]), said: { kind: 'bad', text: 'x' } };
  const state = next(asking, { type: 'open' });
  assert.deepEqual([state.said, state.asking], [null, false]);
  const { values, ...rest } = /** @type {any} */ (state.opened);
  assert.deepEqual(rest, { way: 0, phase: 'editing', errors: {}, refusal: null, tested: null, unverified: false, replace: false });
  assert.deepEqual(card(twilio), { form: twilio, stored: null, ticket: 0, reading: 0, busy: null, asking: false, opened: null, said: null });
});

test('without an open form nothing of a form happens', () => {
  const ready = after([loaded(view({}))]);
  for (const event of [
    { type: 'close' },
    { type: 'input', name: 'auth_token', value: 'x' },
    { type: 'left', name: 'auth_token' },
    { type: 'way', way: 1 },
    { type: 'test' },
    { type: 'save' },
    { type: 'leave' },
    { type: 'tested', ticket: ready.ticket, tested: { state: 'connected' } },
  ]) {
    assert.equal(next(ready, event), ready, event.type);
  }
  assert.equal(after([{ type: 'open' }, { type: 'close' }], ready).opened, null);
});

test('a form that is under way takes no status, no second question, and no way out', () => {
  for (const type of ['test', 'save', 'leave']) {
    const under = after([loaded(null), { type: 'open' }, ...typed, { type }]);
    assert.notEqual(under.opened.phase, 'editing', type);
    assert.equal(next(under, { type: 'status', ticket: under.ticket, stored: view({ state: 'failing' }) }), under, type);
    for (const again of ['test', 'save', 'leave']) assert.equal(next(under, { type: again }), under, `${type}, then ${again}`);
  }
});

test('a save says what was asked for with it, and nothing that was not', () => {
  const open = after([loaded(null), { type: 'open' }, ...typed]);
  const asked = (/** @type {any} */ event) => /** @type {any} */ (next(open, event).opened);
  const flags = (/** @type {any} */ event) => [asked(event).unverified, asked(event).replace];
  assert.deepEqual(flags({ type: 'save' }), [false, false]);
  assert.deepEqual(flags({ type: 'save', unverified: true }), [true, false]);
  assert.deepEqual(flags({ type: 'save', replace: true }), [false, true]);
  assert.deepEqual(flags({ type: 'save', unverified: 'yes', replace: 1 }), [false, false]);
  const left = { ...after([{ type: 'open' }], card(google)) };
  const leave = (/** @type {any} */ more) => /** @type {any} */ (next(left, { type: 'leave', ...more }).opened);
  assert.deepEqual([leave({}).phase, leave({}).replace, leave({}).refusal, leave({ replace: true }).replace], ['leaving', false, null, true]);
});

test('a second test forgets the first, and wrong fields forget a refusal', () => {
  const asked = after([loaded(null), { type: 'open' }, ...typed, { type: 'test' }]);
  const good = next(asked, { type: 'tested', ticket: asked.ticket, tested: { state: 'connected' } });
  assert.equal(next(good, { type: 'test' }).opened.tested, null);
  assert.equal(next(good, { type: 'save' }).opened.tested.state, 'connected', 'what was tested is what is saved');
  const refused = next(asked, { type: 'refused', ticket: asked.ticket, error: error({ requestId: 'R', problem: { accounts: { before: 'a' } } }) });
  assert.deepEqual(refused.opened.refusal, { code: 'refused_by_provider', text: refused.opened.refusal.text, provider: null, requestId: 'R', accounts: { before: 'a' } });
  const again = next(refused, { type: 'save' });
  assert.equal(again.opened.refusal, null);
  const wrong = { ...refused, opened: { ...refused.opened, values: {} } };
  assert.equal(next(wrong, { type: 'test' }).opened.refusal, null);
});

test('buttons say which one leads on', () => {
  const shown = (/** @type {any} */ stored, form = twilio) => model(after([loaded(view(stored))], card(form)), OWNER).buttons.map(({ name, primary }) => (primary ? `${name}!` : name));
  assert.deepEqual(shown({ state: 'not_connected' }), ['open!']);
  assert.deepEqual(shown({ state: 'needs_reconnecting' }), ['open!', 'verify', 'ask']);
  assert.deepEqual(shown({ state: 'failing' }), ['verify', 'open', 'ask']);
  assert.deepEqual(shown({ state: 'connected' }, google), ['verify', 'ask'], 'there is no form to change');
  assert.deepEqual(shown({ state: 'failing' }, google), ['open', 'verify', 'ask']);
  const labels = (/** @type {any} */ state) => model(state, OWNER).buttons.map(({ label }) => label);
  const ready = after([loaded(view({}))]);
  assert.notDeepEqual(labels(ready), labels(next(ready, { type: 'verify' })), 'a check that runs says so');
});

test('a card shows the facts that it has', () => {
  const facts = (/** @type {any} */ more) => Object.fromEntries(model(after([loaded(view(more))]), OWNER).facts.map(({ key, text, time }) => [key, text ?? time]));
  assert.deepEqual(facts({ account: { id: 'AC1', name: 'Birchwood' } }), { account: 'Birchwood' });
  assert.deepEqual(facts({ account: { id: 'AC1', name: null } }), { account: 'AC1' });
  assert.deepEqual(facts({ first_failed_at: 'A', next_try_at: 'B' }), {}, 'of a failure that is over');
  assert.deepEqual(facts({ state: 'failing' }), {});
  assert.deepEqual(facts({ settings: { phone_number: '+1', from: 'a@b.example' }, last_four: '7921' }), { number: '+1', from: 'a@b.example', lastFour: '7921' });
  assert.deepEqual(facts({ age_days: 2, rotate_after_days: 1 }), { age: '2 days; another one is due after 1' });
  assert.deepEqual(facts({ state: 'not_connected', last_four: '7921' }), {});
});

test('a card says nothing where there is nothing to say', () => {
  const shown = (/** @type {any} */ more) => model(after([loaded(view(more))], card({ ...twilio, provider: 'another' })), OWNER);
  const { tone, lead, purpose, words, cause, advice, unavailable, problem, said } = shown({ state: 'sleeping' });
  assert.deepEqual({ tone, lead, purpose, words, cause, advice, unavailable, problem, said }, { tone: 'quiet', lead: null, purpose: null, words: null, cause: null, advice: null, unavailable: null, problem: null, said: null });
  assert.equal(shown({ state: 'failing', cause: 'of_a_newer_release' }).cause, 'of_a_newer_release');
  assert.equal(shown({ cause: 'provider_unavailable' }).cause, null, 'it works');
  assert.equal(shown({ state: 'failing', error: { message: '', http_status: 500 } }).words, null);
  assert.equal(model(card({ ...twilio, available: false }), OWNER).unavailable, null, 'nobody knows yet');
  const away = (/** @type {string} */ state) => model(after([loaded(view({ state }))], card({ ...twilio, available: false })), OWNER).unavailable;
  assert.equal(away('connected'), null);
  assert.ok(away('not_connected'));
});

test('a disconnect that is done is good news, and one that failed is bad news with its request', () => {
  const busy = after([loaded(view({})), { type: 'ask' }, { type: 'disconnect' }]);
  assert.equal(next(busy, { type: 'disconnected', ticket: busy.ticket, stored: view({ state: 'not_connected' }) }).said.kind, 'good');
  const { kind, requestId } = /** @type {any} */ (next(busy, { type: 'refused', ticket: busy.ticket, error: error({ requestId: 'R' }) }).said);
  assert.deepEqual([kind, requestId], ['bad', 'R']);
  const asking = { ...after([loaded(view({}))]), said: { kind: 'good', text: 'x' } };
  assert.deepEqual([next(asking, { type: 'ask' }).said, next(asking, { type: 'verify' }).said], [null, null]);
});
