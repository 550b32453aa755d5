import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { setTimeout as delay } from 'node:timers/promises';
import { ProviderTraffic } from '../../domain/provider-traffic.ts';
import { ErrorCode, LARGEST_WINDOW_BYTES } from '../../http2/frames.ts';
import { until } from '../support/until.ts';
import { type RawPeer, startRawServer } from './raw-server.ts';
import {
  assertNotProcessed,
  assertResponse,
  assertUnanswered,
  countKinds,
  openPool,
  push,
  sendMany,
} from './support.ts';

function say(peer: RawPeer, lastStreamId: number, errorCode: number, debug = ''): void {
  peer.writer.goaway(lastStreamId, errorCode, debug);
  peer.flush();
}

describe('GOAWAY', () => {
  test('in mid-batch: streams above its id are sent again elsewhere, those below wait for their answers', async () => {
    await using server = await startRawServer({
      onRequest: ({ streamId }, peer) => {
        if (peer.number > 1) return peer.answer(streamId, 200);
        if (peer.requests.length !== 30) return;
        say(peer, 39, ErrorCode.noError, '{"reason":"Shutdown"}'); // the twentieth stream
        // Nineteen of the twenty are answered, afterwards, in any order; the answer of one never comes.
        for (let id = 39; id > 1; id -= 2) peer.answer(id, 200);
        peer.socket.end();
      },
    });
    const traffic = new ProviderTraffic();
    await using pool = openPool(server.port, { maxStreams: 30, maxConnections: 1, traffic });
    const results = await sendMany(pool, 50);
    assert.deepEqual(countKinds(results), { response: 49, unanswered: 1 });
    assertUnanswered(results[0], 'connection_lost');
    assert.equal(results[0].evidence.goawayLastStreamId, 39);
    assert.equal(results[0].evidence.goawayDebug, '{"reason":"Shutdown"}');
    assert.equal(server.peers[0]!.requests.length, 30);
    assert.equal(server.peers[1]!.requests.length, 30);
    assert.equal(pool.stats().resent, 10);
    const { goaways, resent, connectionsOpened, unanswered, closed, now } = traffic;
    assert.deepEqual(
      { goaways, resent, connectionsOpened, unanswered, closed, now },
      {
        ...{ goaways: 1, resent: 10, connectionsOpened: 2, unanswered: { connection_lost: 1 } },
        ...{ closed: { connection_lost: 1 }, now: { requests: 0, connections: 1 } },
      },
    );
  });

  test('graceful, then with its real id: nothing new goes on that connection between the two', async () => {
    await using server = await startRawServer({
      onRequest: ({ streamId }, peer) => {
        if (peer.number > 1) return peer.answer(streamId, 200);
        if (peer.requests.length === 10) say(peer, LARGEST_WINDOW_BYTES, ErrorCode.noError);
      },
    });
    await using pool = openPool(server.port);
    const early = sendMany(pool, 10);
    await until(() => server.requests().length === 10);
    await until(() => pool.stats().draining === 1);
    assert.deepEqual(countKinds(await sendMany(pool, 5)), { response: 5 });
    const peer = server.peers[0]!;
    assert.equal(peer.requests.length, 10);
    say(peer, 9, ErrorCode.noError);
    say(peer, LARGEST_WINDOW_BYTES, ErrorCode.noError); // a raised id is not believed
    for (const streamId of [1, 3, 5, 7, 9]) peer.answer(streamId, 200);
    assert.deepEqual(countKinds(await early), { response: 10 });
    assert.equal(server.peers[1]!.requests.length, 10);
    await until(() => peer.isClosed);
  });

  test('right after the handshake: requests survive it, and the peer is not called again at once', async () => {
    let now = 0;
    await using server = await startRawServer({
      onConnection: (peer) => {
        if (peer.number <= 3) say(peer, 0, ErrorCode.noError);
      },
    });
    await using pool = openPool(server.port, {
      clock: () => now,
      random: () => 0,
      backoffMs: 1000,
      requestTimeoutMs: 60_000,
    });
    const sent = sendMany(pool, 10);
    await until(() => pool.stats().endings.done === 1);
    for (const [pauseMs, connections] of [
      [499, 1],
      [1, 2],
      [999, 2],
      [1, 3],
      [1999, 3],
      [1, 4],
    ] as const) {
      now += pauseMs;
      await until(() => server.peers.length === connections);
      await delay(15); // three looks at the clock, in which nothing more may happen
      assert.equal(server.peers.length, connections);
      if (connections < 4) await until(() => pool.stats().endings.done === connections);
    }
    assert.deepEqual(countKinds(await sent), { response: 10 });
    assert.equal(server.peers.length, 4);
  });

  test('with an error code and text: streams below its id are unanswered when the peer hangs up, the process lives', async () => {
    await using server = await startRawServer({
      onRequest: (_, peer) => {
        if (peer.requests.length < 20) return;
        say(peer, 19, ErrorCode.protocolError, 'Maximum active streams violated for this endpoint.');
        peer.socket.end();
      },
    });
    await using pool = openPool(server.port, { maxResends: 0 });
    const results = await sendMany(pool, 20);
    for (const result of results.slice(0, 10)) {
      assertUnanswered(result, 'connection_lost');
      assert.equal(result.evidence.goawayErrorCode, ErrorCode.protocolError);
    }
    for (const result of results.slice(10)) {
      assertNotProcessed(result, 'goaway');
      assert.match(result.evidence.goawayDebug!, /^Maximum active/);
    }
  });

  test('without an end: streams below its id have a bounded time for their answers', async () => {
    await using server = await startRawServer({
      onRequest: ({ streamId }, peer) => say(peer, streamId, ErrorCode.noError),
    });
    await using pool = openPool(server.port, { drainTimeoutMs: 30, maxResends: 0 });
    assertUnanswered(await pool.send(push(0)), 'drain_timeout');
    await until(() => server.peers[0]!.isClosed);
  });

  test('on an idle connection: the next request opens another one', async () => {
    await using server = await startRawServer();
    await using pool = openPool(server.port);
    assertResponse(await pool.send(push(0)));
    say(server.peers[0]!, 1, ErrorCode.noError);
    await until(() => pool.stats().open === 0);
    assertResponse(await pool.send(push(1)));
    assert.deepEqual(
      server.peers.map((peer) => peer.requests.length),
      [1, 1],
    );
  });

  test('a storm of them loses nothing', async () => {
    await using server = await startRawServer({
      onRequest: ({ streamId }, peer) => {
        peer.answer(streamId, 200);
        if (peer.requests.length === 7 * peer.number) {
          say(peer, streamId, ErrorCode.noError, '{"reason":"Shutdown"}');
        }
      },
    });
    await using pool = openPool(server.port, { maxStreams: 20, maxConnections: 2, maxResends: 100 });
    assert.deepEqual(countKinds(await sendMany(pool, 500)), { response: 500 });
    assert.ok(server.peers.length > 5);
    // Whatever was sent twice had been promised not to be looked at the first time.
    assert.ok(pool.stats().unanswered === 0);
  });
});
