// What stands before Hookswitch in production: TLS and HTTP/2 for browsers, HTTP/1.1 for the admin
// listener. `node http2.mjs KEY CERTIFICATE PORT` says on which port it listens itself.

import { readFileSync } from 'node:fs';
import { Agent, request } from 'node:http';
import { createSecureServer } from 'node:http2';

const [key, certificate, port] = process.argv.slice(2);
const agent = new Agent({ keepAlive: true });
/** Headers of one connection; HTTP/2 has none of them. */
const OF_CONNECTION = new Set(['connection', 'keep-alive', 'transfer-encoding']);

/** @param {Record<string, any>} headers @param {(name: string) => boolean} isKept */
const kept = (headers, isKept) => Object.fromEntries(Object.entries(headers).filter(([name]) => isKept(name)));

const server = createSecureServer({ key: readFileSync(key), cert: readFileSync(certificate) });
server.on('request', (asked, answer) => {
  const headers = { ...kept(asked.headers, (name) => !name.startsWith(':')), host: asked.authority };
  const passed = request({ agent, host: '127.0.0.1', port, method: asked.method, path: asked.url, headers }, (came) => {
    answer.writeHead(came.statusCode ?? 502, kept(came.headers, (name) => !OF_CONNECTION.has(name)));
    came.pipe(answer);
  });
  passed.on('error', () => answer.stream.destroy());
  answer.on('close', () => passed.destroy());
  asked.pipe(passed);
});
server.listen(0, '127.0.0.1', () => console.log(/** @type {any} */ (server.address()).port));
// It ends with the test that started it.
process.stdin.on('end', () => process.exit()).resume();
