import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { setTimeout as delay } from 'node:timers/promises';
import fc from 'fast-check';
import { ErrorCode, FrameType, LARGEST_WINDOW_BYTES } from '../../http2/frames.ts';
import { HeaderTemplate } from '../../http2/header-template.ts';
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

describe('connections', () => {
  test('are opened only as requests need them, never more than allowed', async () => {
    await using server = await startRawServer({ settings: [[3, 10]], onRequest: () => {} });
    await using pool = openPool(server.port, { maxConnections: 3 });
    assert.equal(pool.stats().opened, 0);
    const few = sendMany(pool, 10);
    await until(() => server.requests().length === 10);
    assert.equal(pool.stats().opened, 1);
    // The first one shows that it answers before a second is thought of.
    server.peers[0]!.answer(1, 200);
    const many = sendMany(pool, 50);
    await until(() => server.peers[1]?.requests.length === 10);
    server.peers[1]!.answer(1, 200);
    await until(() => server.peers[2]?.requests.length === 10);
    assert.equal(pool.stats().queued, 50 - 1 - 11 - 10);
    const timer = setInterval(() => {
      for (const peer of server.peers) for (const { streamId } of peer.requests.splice(0)) peer.answer(streamId, 200);
    }, 1);
    assert.deepEqual(countKinds([...(await few), ...(await many)]), { response: 60 });
    clearInterval(timer);
    assert.equal(pool.stats().opened, 3);
  });

  test('take turns: the least busy one is next', async () => {
    await using server = await startRawServer({
      settings: [[3, 5]],
      onRequest: ({ streamId }, peer) => void setTimeout(() => peer.answer(streamId, 200), 1),
    });
    await using pool = openPool(server.port, { maxConnections: 2 });
    assert.deepEqual(countKinds(await sendMany(pool, 400)), { response: 400 });
    const [first, second] = server.peers.map((peer) => peer.requests.length);
    assert.ok(first! > 100 && second! > 100, `${first} and ${second}`);
  });

  test('many requests share one write', async () => {
    let chunks = 0;
    await using server = await startRawServer({
      onConnection: (peer) => peer.socket.on('data', () => chunks++),
    });
    await using pool = openPool(server.port);
    assertResponse(await pool.send(push(0)));
    chunks = 0;
    assert.deepEqual(countKinds(await sendMany(pool, 500)), { response: 500 });
    assert.ok(chunks < 30, `${chunks} chunks`);
  });

  test('run out of stream ids: the next request opens another one', async () => {
    await using server = await startRawServer();
    await using pool = openPool(server.port, { firstStreamId: LARGEST_WINDOW_BYTES - 8 });
    assert.deepEqual(countKinds(await sendMany(pool, 12)), { response: 12 });
    assert.deepEqual(
      server.peers.map((peer) => peer.requests.map(({ streamId }) => LARGEST_WINDOW_BYTES - streamId)),
      [
        [8, 6, 4, 2, 0],
        [8, 6, 4, 2, 0],
        [8, 6],
      ],
    );
  });

  test('are replaced at their age, the new one first', async () => {
    let now = 0;
    await using server = await startRawServer();
    await using pool = openPool(server.port, { clock: () => now, maxAgeMs: 1000 });
    assertResponse(await pool.send(push(0)));
    now += 1000;
    await until(() => server.peers.length === 2 && server.peers[0]!.isClosed);
    assert.deepEqual(pool.stats().endings, { done: 1 });
    assertResponse(await pool.send(push(1)));
    assert.equal(server.peers[1]!.requests.length, 1);
  });

  test('are retired by whoever got a response on them; others in flight end there', async () => {
    await using server = await startRawServer({
      onRequest: ({ streamId }, peer) => {
        if (streamId === 1 || peer.number > 1) peer.answer(streamId, peer.number === 1 ? 403 : 200);
      },
    });
    await using pool = openPool(server.port, { maxConnections: 1 });
    const others = [pool.send(push(1)), pool.send(push(2))];
    // Stream 1 is the first of these three that was written.
    const [first, ...waiting] = others.concat(pool.send(push(3)));
    const refused = await first;
    assertResponse(refused, 403);
    refused.connection.retire();
    refused.connection.retire();
    assertResponse(await pool.send(push(4)));
    const peer = server.peers[0]!;
    assert.equal(peer.requests.length, 3);
    peer.answer(3, 200);
    peer.answer(5, 200);
    assert.deepEqual(countKinds(await Promise.all(waiting)), { response: 2 });
    await until(() => peer.isClosed);
    assert.equal(peer.frames.at(-1)!.type, FrameType.goaway);
  });
});

describe('close', () => {
  test('lets requests in flight end, answers queued ones, refuses new ones, leaves nothing open', async () => {
    await using server = await startRawServer({
      settings: [[3, 5]],
      onRequest: ({ streamId }, peer) => void setTimeout(() => peer.answer(streamId, 200), 20),
    });
    await using pool = openPool(server.port, { maxConnections: 1 });
    const sent = sendMany(pool, 12);
    await until(() => server.requests().length === 5);
    const closed = pool.close();
    assertNotProcessed(await pool.send(push(99)), 'closed');
    await closed;
    await pool.close();
    assert.deepEqual(countKinds(await sent), { response: 5, notProcessed: 7 });
    assert.deepEqual(pool.stats().endings, { done: 1 });
    assert.equal(pool.stats().inFlight + pool.stats().queued, 0);
    await until(() => server.peers[0]!.isClosed);
  });

  test('is bounded: what does not end in time is unanswered', async () => {
    await using server = await startRawServer({ onRequest: () => {} });
    await using pool = openPool(server.port);
    const sent = pool.send(push(0));
    await until(() => server.requests().length === 1);
    await pool.close(20);
    assertUnanswered(await sent, 'connection_lost');
    await until(() => server.peers[0]!.isClosed);
  });

  test('while a connection is being made', async () => {
    await using server = await startRawServer({ greets: false });
    await using pool = openPool(server.port);
    const sent = pool.send(push(0));
    await until(() => server.peers.length === 1);
    await pool.close();
    assertNotProcessed(await sent, 'closed');
  });

  test('of a pool that was never used', async () => {
    await openPool(1).close();
  });
});

test('a template refuses what HTTP/2 cannot carry', () => {
  const make = (name: string, value = 'x') => new HeaderTemplate({ authority: 'a', fields: [{ name, value }] });
  for (const name of ['Upper', 'with space', '', ':path', 'connection', 'transfer-encoding']) {
    assert.throws(() => make(name), TypeError);
  }
  for (const value of ['a\r\nb', 'ä', ' leading', 'trailing ', '\0']) assert.throws(() => make('ok', value), TypeError);
  assert.throws(() => new HeaderTemplate({ authority: 'a\nb', fields: [] }), TypeError);
  assert.throws(() => new HeaderTemplate({ authority: 'a', fields: [], ownNames: ['Bad'] }), TypeError);
});

describe('whatever the peer does', () => {
  const act = fc.constantFrom<(streamId: number, peer: RawPeer) => void>(
    (id, peer) => peer.answer(id, 200),
    (id, peer) => peer.answer(id, 200),
    (id, peer) => peer.answer(id, 200),
    (id, peer) => void setTimeout(() => peer.answer(id, 410, [], '{"reason":"Unregistered"}'), 1),
    (id, peer) => {
      peer.writer.rstStream(id, ErrorCode.internalError);
      peer.flush();
    },
    (id, peer) => {
      peer.writer.goaway(id, ErrorCode.noError);
      peer.answer(id, 200);
    },
    (id, peer) => {
      peer.writer.settings([[3, id % 7]]);
      peer.answer(id, 200);
    },
    (id, peer) => {
      peer.writer.settings([[3, 50], [1, id % 300], [4, id % 100]]); // biome-ignore format: one line
      peer.answer(id, 200);
    },
    (_, peer) => void peer.socket.end(),
    (_, peer) => peer.reset(),
    () => {},
  );

  test('every request ends exactly once, and what is called not processed was not', async () => {
    await fc.assert(
      fc.asyncProperty(fc.array(act, { minLength: 1, maxLength: 15 }), async (script) => {
        let turn = 0;
        const refused = new Set<string>();
        const taken = new Map<string, number>();
        await using server = await startRawServer({
          settings: [[3, 20]],
          onRequest: ({ streamId, headers }, peer) => {
            const path = headers.get(':path')!;
            if (turn++ % 9 === 8) {
              refused.add(path);
              peer.writer.rstStream(streamId, ErrorCode.refusedStream);
              peer.flush();
              return;
            }
            taken.set(path, (taken.get(path) ?? 0) + 1);
            script[turn % script.length]!(streamId, peer);
          },
        });
        await using pool = openPool(server.port, {
          maxConnections: 2,
          maxResends: 0,
          backoffMs: 1,
          queueTimeoutMs: 300,
        });
        const count = 60;
        let settled = 0;
        const results = await Promise.all(
          Array.from({ length: count }, async (_, n) => {
            const result = await pool.send(push(n, { timeoutMs: 150 }));
            settled++;
            return result;
          }),
        );
        assert.equal(settled, count);
        const { answered, unanswered, notProcessed } = pool.stats();
        assert.equal(answered + unanswered + notProcessed, count);
        for (const [n, result] of results.entries()) {
          const path = `/3/device/${n}`;
          if (result.kind === 'response') assert.equal(taken.get(path), 1);
          if (result.kind === 'notProcessed' && result.cause === 'refused') assert.ok(refused.has(path));
          if (result.kind === 'notProcessed' && result.cause === 'deadline') assert.equal(taken.get(path), undefined);
          if (result.kind === 'notProcessed' && result.cause === 'closed') assert.fail('not closed yet');
        }
        await delay(0);
      }),
      { numRuns: 15 },
    );
  });
});
