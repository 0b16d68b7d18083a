// The stream of changes, and the looks without one.

import test from 'node:test';
import assert from 'node:assert/strict';
import { LINGER_MS, Live, Messages, POLL_MS, RETRY_MS, RETRY_MS_MAX, SILENCE_MS, SLOW_MS, waitMs } from '../lib/live.js';

const changed = (/** @type {string[]} */ ...lists) => `event: changed\ndata: {"lists":${JSON.stringify(lists)}}\n\n`;
const end = (/** @type {string} */ reason) => `event: end\ndata: {"reason":"${reason}"}\n\n`;

/** Lets everything happen that waits for no timer. */
const settled = async () => {
  for (let turn = 0; turn < 20; turn += 1) await Promise.resolve();
};

/** A server whose streams the test writes. */
class Server {
  /** @type {{say: (text: string) => void, cut: () => void, isOpen: boolean}[]} */
  streams = [];
  refuses = false;
  asked = 0;

  open = async (/** @type {AbortSignal} */ signal) => {
    this.asked += 1;
    if (this.refuses) throw new Error('refused');
    /** @type {(string | null)[]} */
    const said = [];
    let wake = () => {};
    const push = (/** @type {string | null} */ text) => {
      said.push(text);
      wake();
    };
    const stream = { say: push, cut: () => push(null), isOpen: true };
    this.streams.push(stream);
    signal.addEventListener('abort', () => {
      stream.isOpen = false;
      push(null);
    });
    return (async function* () {
      for (;;) {
        const text = said.shift();
        if (text === null) return;
        if (text === undefined) await new Promise((resolve) => (wake = () => resolve(undefined)));
        else yield text;
      }
    })();
  };

  get last() {
    return this.streams[this.streams.length - 1];
  }
}

/** @param {import('node:test').TestContext} t */
function given(t) {
  t.mock.timers.enable({ apis: ['setTimeout'] });
  const server = new Server();
  const seen = { looks: 0, others: 0, ended: 0, states: /** @type {string[]} */ ([]) };
  const live = new Live({ open: server.open, ended: () => (seen.ended += 1), random: () => 1 });
  live.listen(() => seen.states.push(live.state));
  const pass = async (/** @type {number} */ ms) => {
    for (let left = ms; left > 0; left -= 500) {
      t.mock.timers.tick(Math.min(left, 500));
      await settled();
    }
  };
  return { server, seen, live, pass };
}

test('messages come whole, however their text is cut', () => {
  const text = `retry: 1500\n\n: still here\n\n${changed('events')}event: end\r\ndata: {"reason":"stopping"}\r\n\r\n`;
  const whole = [
    { event: 'changed', data: '{"lists":["events"]}' },
    { event: 'end', data: '{"reason":"stopping"}' },
  ];
  for (let size = 1; size < text.length; size += 1) {
    const messages = new Messages();
    const found = [];
    for (let at = 0; at < text.length; at += size) found.push(...messages.push(text.slice(at, at + size)));
    assert.deepEqual([found, messages.retryMs, messages.rest], [whole, 1500, ''], `in parts of ${size}`);
  }
});

test('a line of a message is read as it is written', () => {
  const read = (/** @type {string} */ text) => {
    const messages = new Messages();
    return [messages.push(`${text}\n\n`), messages.retryMs];
  };
  assert.deepEqual(read('data'), [[{ event: 'message', data: '' }], null], 'a name without a value');
  assert.deepEqual(read('data:a'), [[{ event: 'message', data: 'a' }], null], 'without a blank');
  assert.deepEqual(read('data:  a'), [[{ event: 'message', data: ' a' }], null], 'one blank alone goes');
  assert.deepEqual(read('data: a:b\ndata: c'), [[{ event: 'message', data: 'a:b\nc' }], null]);
  assert.deepEqual(read(':data: a'), [[], null], 'a comment');
  assert.deepEqual(read('event: x'), [[], null], 'a message without data is none');
  assert.deepEqual(read('retry: soon'), [[], null]);
  assert.deepEqual(read('id: 7'), [[], null], 'no number of another field is a wait');
});

test('the wait doubles up to a minute, and is spread', () => {
  assert.deepEqual([0, 1, 2, 9, 99].map((tries) => waitMs(tries, RETRY_MS, 1)), [3_000, 6_000, 12_000, RETRY_MS_MAX, RETRY_MS_MAX]);
  assert.equal(waitMs(0, RETRY_MS, 0), 1_500);
});

test('a list is looked at when it is named, and hardly ever without that', async (t) => {
  const { server, seen, live, pass } = given(t);
  live.allow(true);
  live.watch(['events', 'actions'], async () => (seen.looks += 1));
  live.watch(['jobs'], async () => (seen.others += 1));
  await settled();
  server.last.say('retry: 3000\n\n');
  server.last.say(changed('events', 'actions', 'jobs'));
  await settled();
  assert.deepEqual([live.state, seen.looks, seen.others, server.asked], ['live', 1, 1, 1]);
  server.last.say(changed('actions'));
  await settled();
  assert.deepEqual([seen.looks, seen.others], [2, 1]);
  await pass(SILENCE_MS - 1);
  server.last.say(': still here\n\n');
  await settled();
  assert.deepEqual([seen.looks, seen.others], [2, 1], 'no poll beside a stream');
  await pass(SLOW_MS - SILENCE_MS + 1);
  assert.deepEqual([seen.looks, seen.others], [3, 2], 'but once a minute');
});

test('without a stream there are looks every few seconds, and a stream ends them', async (t) => {
  const { server, seen, live, pass } = given(t);
  server.refuses = true;
  live.allow(true);
  live.watch(['events'], async () => (seen.looks += 1));
  await settled();
  assert.equal(live.state, 'polling');
  await pass(POLL_MS);
  await pass(POLL_MS);
  assert.equal(seen.looks, 2);
  assert.equal(server.asked, 3, 'tried at 0, 3 and 9 seconds');
  server.refuses = false;
  await pass(12_000);
  server.last.say(changed('events'));
  await settled();
  assert.equal(live.state, 'live');
  const { looks } = seen;
  await pass(POLL_MS * 2);
  assert.equal(seen.looks, looks);
  server.last.cut();
  await settled();
  assert.deepEqual(seen.states, ['polling', 'live', 'polling']);
  await pass(POLL_MS);
  assert.equal(seen.looks, looks + 1);
});

test('a stream that says nothing any more is given up', async (t) => {
  const { server, live, pass } = given(t);
  live.allow(true);
  live.watch(['events'], async () => {});
  await settled();
  server.last.say(changed('events'));
  await settled();
  await pass(SILENCE_MS);
  assert.deepEqual([live.state, server.streams[0].isOpen], ['polling', false]);
  await pass(RETRY_MS);
  assert.equal(server.asked, 2);
});

test('a hidden page has no connection and asks for nothing; a page that is seen again looks at once', async (t) => {
  const { server, seen, live, pass } = given(t);
  live.allow(true);
  live.watch(['events'], async () => (seen.looks += 1));
  await settled();
  live.show(false);
  await settled();
  assert.deepEqual([server.last.isOpen, live.state], [false, 'off']);
  await pass(SLOW_MS);
  assert.deepEqual([seen.looks, server.asked], [0, 1]);
  live.show(true);
  await settled();
  assert.deepEqual([seen.looks, server.asked, server.last.isOpen], [1, 2, true]);
});

test('the way from page to page keeps the stream; a page without lists ends it', async (t) => {
  const { server, live, pass } = given(t);
  live.allow(true);
  const leave = live.watch(['events'], async () => {});
  await settled();
  leave();
  const leaveAgain = live.watch(['actions'], async () => {});
  await pass(LINGER_MS);
  assert.deepEqual([server.asked, server.last.isOpen], [1, true]);
  leaveAgain();
  live.watch([], async () => {});
  await pass(LINGER_MS);
  assert.equal(server.last.isOpen, false);
});

test('what is changed during a look is looked at again, once', async (t) => {
  const { server, seen, live } = given(t);
  live.allow(true);
  /** @type {(() => void)[]} */
  const answers = [];
  live.watch(['events'], () => {
    seen.looks += 1;
    return new Promise((resolve) => answers.push(() => resolve(undefined)));
  });
  await settled();
  for (let time = 0; time < 4; time += 1) server.last.say(changed('events'));
  await settled();
  assert.equal(seen.looks, 1);
  answers[0]();
  await settled();
  assert.equal(seen.looks, 2);
  answers[1]();
  await settled();
  assert.equal(seen.looks, 2);
});

test('a token that ended is told; a server that stops is not', async (t) => {
  const { server, seen, live, pass } = given(t);
  live.allow(true);
  live.watch(['events'], async () => {});
  await settled();
  server.last.say(end('stopping'));
  server.last.cut();
  await settled();
  assert.deepEqual([seen.ended, live.state], [0, 'polling']);
  await pass(RETRY_MS);
  server.last.say(end('token_ended'));
  await settled();
  assert.equal(seen.ended, 1);
  live.allow(false);
  await pass(RETRY_MS_MAX);
  assert.equal(server.asked, 2, 'nobody is signed in any more');
});

test('a part that fails to look is looked at again', async (t) => {
  const { seen, live, pass } = given(t);
  live.watch([], async () => {
    seen.looks += 1;
    throw new Error('away');
  });
  await pass(POLL_MS);
  await pass(POLL_MS);
  assert.equal(seen.looks, 2);
});
