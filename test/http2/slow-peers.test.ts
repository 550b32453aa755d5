/** Peers that are slow and not broken: nothing may end in doubt, and no connection may be given up. */
import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { FrameType } from '../../http2/frames.ts';
import { until } from '../support/until.ts';
import { type RawPeer, startRawServer } from './raw-server.ts';
import { assertNotProcessed, assertResponse, countKinds, openPool, push, sendMany } from './support.ts';

const pingsOf = (peer: RawPeer) => peer.frames.filter(({ type }) => type === FrameType.ping).length;

/** A server that answers nothing until it is told to, in the order in which requests came. */
async function startPatientServer(settings: [number, number][] = [[3, 1000]]) {
  const waiting: { streamId: number; peer: RawPeer }[] = [];
  let most = 0;
  const server = await startRawServer({
    settings,
    onRequest: ({ streamId }, peer) => {
      waiting.push({ streamId, peer });
      most = Math.max(most, waiting.length);
    },
  });
  return {
    ...server,
    waiting,
    get mostWaiting() {
      return most;
    },
    answer(count: number) {
      for (const { streamId, peer } of waiting.splice(0, count)) peer.answer(streamId, 200);
    },
    [Symbol.asyncDispose]: () => server[Symbol.asyncDispose](),
  };
}

/** Answers so many every few milliseconds. */
function answerSteadily(server: { answer(count: number): void }, count: number): Disposable {
  const timer = setInterval(() => server.answer(count), 10);
  return { [Symbol.dispose]: () => clearInterval(timer) };
}

describe('a peer that queues what it cannot take at once', () => {
  test('gets few requests when it answers few, on one connection, and all of them are answered', async () => {
    await using server = await startPatientServer();
    using _ = answerSteadily(server, 4);
    await using pool = openPool(server.port, { initialRequests: 20, requestTimeoutMs: 3_000 });
    assert.deepEqual(countKinds(await sendMany(pool, 300)), { response: 300 });
    assert.ok(server.mostWaiting <= 100, `${server.mostWaiting} at once`);
    assert.equal(server.peers.length, 1);
    assert.equal(pool.stats().unanswered, 0);
  });

  test('gets more and more as it answers fast', async () => {
    await using server = await startPatientServer();
    using _ = answerSteadily(server, 1000);
    await using pool = openPool(server.port, { initialRequests: 20 });
    assert.deepEqual(countKinds(await sendMany(pool, 3_000)), { response: 3_000 });
    assert.ok(server.mostWaiting >= 300, `${server.mostWaiting} at once`);
  });

  test('gets fewer once it slows down, and is not asked for more while it is silent', async () => {
    let now = 0;
    await using server = await startPatientServer();
    await using pool = openPool(server.port, { clock: () => now, requestTimeoutMs: 15_000 });
    const sent = sendMany(pool, 900);
    await until(() => server.waiting.length === 900);
    const limit = pool.stats().limit;
    now += 1_100;
    await until(() => pool.stats().limit < limit);
    const more = sendMany(pool, 50);
    assert.equal(pool.stats().queued, 50);
    now += 500;
    server.answer(900);
    assert.deepEqual(countKinds(await sent), { response: 900 });
    await until(() => server.waiting.length > 0);
    using _ = answerSteadily(server, 10);
    assert.deepEqual(countKinds(await more), { response: 50 });
  });
});

describe('requests that no answer is to be expected to', () => {
  test('hold no place for those behind them once so many were answered in their stead', async () => {
    const waiting: (() => void)[] = [];
    await using server = await startRawServer({
      onRequest: ({ streamId, headers }, peer) => {
        if (!headers.get(':path')!.endsWith('0')) waiting.push(() => peer.answer(streamId, 200));
      },
    });
    using _ = answerSteadily({ answer: (count) => waiting.splice(0, count).forEach((answer) => void answer()) }, 8);
    // So slow that the limit stays below the 60 that are lost.
    await using pool = openPool(server.port, { initialRequests: 20, requestTimeoutMs: 600 });
    const sent = sendMany(pool, 600, { timeoutMs: 120_000 });
    await until(() => pool.stats().answered === 540);
    await pool.close(0);
    assert.deepEqual(countKinds(await sent), { response: 540, unanswered: 60 });
  });

  test('on a connection that gives no sign of life, hold none on another', async () => {
    let now = 0;
    await using server = await startRawServer({
      onRequest: ({ streamId }, peer) => {
        if (peer.number === 1) peer.acksPings = false;
        else peer.answer(streamId, 200);
      },
    });
    await using pool = openPool(server.port, { clock: () => now, initialRequests: 20, requestTimeoutMs: 60_000 });
    const lost = sendMany(pool, 20);
    await until(() => server.requests().length === 20);
    now += 2_100;
    await until(() => pingsOf(server.peers[0]!) === 1);
    now += 1_000;
    assert.deepEqual(countKinds(await sendMany(pool, 60)), { response: 60 });
    now += 4_100;
    assert.deepEqual(countKinds(await lost), { unanswered: 20 });
  });
});

describe('a connection on which answers arrive', () => {
  test('is alive, though PING is never answered', async () => {
    let now = 0;
    await using server = await startPatientServer();
    await using pool = openPool(server.port, { clock: () => now, requestTimeoutMs: 600_000 });
    const sent = sendMany(pool, 8);
    await until(() => server.waiting.length === 8);
    const peer = server.peers[0]!;
    peer.acksPings = false;
    for (let answered = 1; answered <= 8; answered++) {
      now += 2_100;
      await until(() => pingsOf(peer) === answered);
      now += 4_000;
      server.answer(1);
      await until(() => pool.stats().answered === answered);
    }
    assert.deepEqual(countKinds(await sent), { response: 8 });
    assert.equal(server.peers.length, 1);
  });

  test('is given ten times as long for a PING as its answers took', async () => {
    let now = 0;
    await using server = await startPatientServer();
    await using pool = openPool(server.port, { clock: () => now, requestTimeoutMs: 600_000, maxConnections: 1 });
    const first = pool.send(push(0));
    await until(() => server.waiting.length === 1);
    const peer = server.peers[0]!;
    peer.acksPings = false;
    now += 1_500;
    server.answer(1);
    assertResponse(await first);
    const second = pool.send(push(1));
    await until(() => server.waiting.length === 1);
    now += 2_100;
    await until(() => pingsOf(peer) === 1);
    now += 14_000;
    server.answer(1);
    assertResponse(await second);
    assert.deepEqual(pool.stats().endings, {});
  });

  test('is not judged by what came while this process stood still', async () => {
    let now = 0;
    await using server = await startPatientServer();
    await using pool = openPool(server.port, { clock: () => now, requestTimeoutMs: 15_000 });
    const sent = sendMany(pool, 5);
    await until(() => server.waiting.length === 5);
    server.answer(5);
    now += 60_000;
    assert.deepEqual(countKinds(await sent), { response: 5 });
  });
});

describe("a request's time", () => {
  test('counts from the writing, not from the queue', async () => {
    let now = 0;
    await using server = await startPatientServer([[3, 1]]);
    await using pool = openPool(server.port, { clock: () => now, requestTimeoutMs: 1_000, maxConnections: 1 });
    const sent = sendMany(pool, 4);
    for (let n = 0; n < 4; n++) {
      await until(() => server.waiting.length === 1);
      now += 900;
      server.answer(1);
    }
    assert.deepEqual(countKinds(await sent), { response: 4 });
  });

  test('in the queue is bounded too, and ends as not processed', async () => {
    let now = 0;
    await using server = await startPatientServer([[3, 1]]);
    await using pool = openPool(server.port, { clock: () => now, requestTimeoutMs: 90_000, maxConnections: 1 });
    const [written, queued] = [pool.send(push(0)), pool.send(push(1))];
    await until(() => server.waiting.length === 1);
    now += 60_000;
    assertNotProcessed(await queued, 'deadline');
    server.answer(1);
    assertResponse(await written);
    assert.equal(server.requests().length, 1);
  });
});
