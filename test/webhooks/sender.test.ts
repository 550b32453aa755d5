/** One request of a webhook: to whom it may go, and what receivers do to it. */
import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import { Webhook } from 'standardwebhooks';
import type { Resolve } from '../../activities/webhooks/guarded-connect.ts';
import { WebhookSender } from '../../activities/webhooks/webhook-sender.ts';
import { parseNetwork } from '../../domain/webhook-address.ts';
import { createAuthority, createServerCertificate } from '../../simulator/certificates.ts';
import { listen, startReceiver, type WebhookReceiver } from '../support/webhook-receiver.ts';

const secrets = ['whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw', `whsec_${Buffer.from('another secret').toString('base64')}`];
const body = JSON.stringify({ type: 'webhook.test', timestamp: '2026-12-24T18:00:00Z', data: {} });
const never = new AbortController().signal;
const timeoutMs = 500;

let receiver: WebhookReceiver;
before(async () => {
  receiver = await startReceiver();
});
after(() => receiver.close());

interface Options {
  networks?: string[];
  resolve?: Resolve;
  ca?: string;
}

/** To `127.0.0.1` alone, where nothing else is said. */
async function send(url: string, { networks = ['127.0.0.1/32'], ...options }: Options = {}) {
  const sender = new WebhookSender({
    ...{ masterKeys: undefined, timeoutMs, ...options },
    places: { allowedNetworks: networks.map(parseNetwork) },
  });
  try {
    return await sender.send({ url, secrets, eventId: 'evt-1', body }, never);
  } finally {
    await sender.close();
  }
}

/** Answers in turn, the last one again and again. */
function resolving(...answers: string[][]): Resolve {
  return (_, __, done) => {
    const addresses = answers.length > 1 ? answers.shift()! : answers[0]!;
    done(
      null,
      addresses.map((address) => ({ address, family: address.includes(':') ? 6 : 4 })),
    );
  };
}

test('a request is what the library of Standard Webhooks verifies, by each of the secrets', async () => {
  assert.deepEqual(await send(receiver.url), { status: 204 });
  const { headers, text } = receiver.received.at(-1)!;
  assert.deepEqual([headers['webhook-id'], headers['content-type']], ['evt-1', 'application/json']);
  for (const secret of secrets) {
    assert.deepEqual(new Webhook(secret).verify(text, headers as Record<string, string>), JSON.parse(body));
  }
  assert.throws(() => new Webhook(secrets[0]!).verify(`${text} `, headers as Record<string, string>));
});

describe('an address that is not allowed is never connected to', () => {
  for (const url of ['http://127.0.0.2:1/', 'https://169.254.169.254/latest', 'https://[::1]/', 'https://10.0.0.1/']) {
    test(`as ${url}`, async () => {
      assert.match((await send(url)).error!, /is not a public address|in no network/);
    });
  }

  test('behind a name', async () => {
    const port = receiver.port;
    const { error } = await send(`https://inside.example:${port}/`, {
      networks: [],
      resolve: resolving(['127.0.0.1', '::1', '169.254.169.254']),
    });
    assert.equal(error, 'inside.example leads to no address that is allowed.');
  });

  test('behind a name that led elsewhere a moment ago', async () => {
    const other = await startReceiver({ address: '127.0.0.2', port: receiver.port });
    receiver.answer = () => ({ status: 204, headers: { connection: 'close' } });
    const sender = new WebhookSender({
      ...{ masterKeys: undefined, timeoutMs, places: { allowedNetworks: [parseNetwork('127.0.0.1/32')] } },
      resolve: resolving(['127.0.0.1'], ['127.0.0.2']),
    });
    const request = { url: `http://turning.example:${receiver.port}/`, secrets, eventId: 'evt-2', body };
    assert.deepEqual(await sender.send(request, never), { status: 204 });
    assert.match((await sender.send(request, never)).error!, /leads to no address that is allowed/);
    assert.deepEqual(other.received, []);
    await Promise.all([sender.close(), other.close()]);
  });

  test('where a name has others too, one of those is taken', async () => {
    const url = `http://mixed.example:${receiver.port}/`;
    assert.deepEqual(await send(url, { resolve: resolving(['127.0.0.2', '127.0.0.1']) }), { status: 204 });
  });

  test('behind a redirect: none is followed', async () => {
    receiver.answer = () => ({ status: 307, headers: { location: 'http://169.254.169.254/latest/meta-data' } });
    const before = receiver.received.length;
    const attempt = await send(receiver.url);
    assert.equal(attempt.status, 307);
    assert.match(attempt.error!, /redirects, which is not followed/);
    assert.equal(receiver.received.length, before + 1);
    receiver.answer = () => ({ status: 204 });
  });
});

test('over TLS the name must be that of the certificate, and its authority known', async () => {
  const authority = createAuthority('An authority');
  const { certificate, privateKey } = createServerCertificate(authority);
  const secure = await startReceiver({ tls: { key: privateKey, cert: certificate } });
  const named = (name: string) => `https://${name}:${secure.port}/`;
  const resolve = resolving(['127.0.0.1']);
  assert.deepEqual(await send(named('localhost'), { resolve, ca: authority.certificate }), { status: 204 });
  assert.match((await send(named('localhost'), { resolve })).error!, /certificate/);
  assert.match((await send(named('other.example'), { resolve, ca: authority.certificate })).error!, /altnames/);
  await secure.close();
});

describe('a receiver', () => {
  test('that never answers is given up after the time limit', async () => {
    const silent = await listen(() => {});
    assert.deepEqual(await send(silent.url), { error: `No answer within ${timeoutMs / 1_000} s.` });
    await silent.close();
  });

  test('that answers without end is believed its status, and read no further', async () => {
    let written = 0;
    const endless = await listen((request, response) => {
      request.resume();
      response.writeHead(200);
      const chunk = Buffer.alloc(64 * 1024, 'x');
      const write = () => {
        while (!response.destroyed && written < 100 * 1024 * 1024) {
          written += chunk.length;
          if (!response.write(chunk)) return;
        }
      };
      response.on('drain', write);
      write();
    });
    assert.deepEqual(await send(endless.url), { status: 200 });
    assert.ok(written < 20 * 1024 * 1024, `${written} bytes`);
    await endless.close();
  });

  test('that stops in the middle of its answer has answered', async () => {
    const stuck = await listen(
      (_, response) => void response.writeHead(200, { 'content-length': '100' }).write('half'),
    );
    assert.deepEqual(await send(stuck.url), { status: 200 });
    await stuck.close();
  });

  test('that closes the connection, or is not there, has taken nothing', async () => {
    const rude = await listen((request) => void request.socket.destroy());
    assert.match((await send(rude.url)).error!, /closed|reset|hang up/i);
    await rude.close();
    assert.match((await send(rude.url)).error!, /ECONNREFUSED/);
  });

  test('that refuses is quoted, cut and without what terminals would take for commands', async () => {
    receiver.answer = () => ({ status: 500, body: `\u001b[31mbroken\u0000 ${'x'.repeat(10_000)}` });
    const { status, error } = await send(receiver.url);
    assert.equal(status, 500);
    assert.match(error!, /^HTTP 500\. \[31mbroken x+$/);
    assert.ok(error!.length <= 300);
  });

  test('may ask for patience in seconds or by a date, and other words are not taken', async () => {
    const asked = async (status: number, value: string) => {
      receiver.answer = () => ({ status, headers: { 'retry-after': value } });
      return (await send(receiver.url)).retryAfterMs;
    };
    assert.equal(await asked(429, '120'), 120_000);
    assert.equal(await asked(503, '1'), 1_000);
    const byDate = (await asked(503, new Date(Date.now() + 60_000).toUTCString()))!;
    assert.ok(byDate > 50_000 && byDate <= 60_000, `${byDate}`);
    for (const value of ['soon', '-5', new Date(0).toUTCString()]) assert.equal(await asked(429, value), undefined);
    assert.equal(await asked(500, '120'), undefined);
  });
});
