/** The limit on requests under way, against a peer in virtual time that queues what it cannot take at once. */
import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import fc from 'fast-check';
import { FlowLimit, fewestRequests } from '../../http2/flow-limit.ts';

interface Peer {
  /** Answers a second; changes at `changesAtMs`. */
  rate: number;
  laterRate?: number;
  changesAtMs?: number;
  /** Answers come together, so often; 0: steadily. */
  burstMs: number;
  /** What an answer takes without a queue. */
  networkMs: (random: number) => number;
}

interface Run {
  /** Share of what the peer could take that it was given, once the limit had time to find its place. */
  share: number;
  longestAnswerMs: number;
  mostUnderWay: number;
  limit: number;
}

const timeoutMs = 15_000;
const targetMs = timeoutMs / 30;

/** A sender that always has more to send. Steps are milliseconds. */
function simulate(peer: Peer, runMs: number, settleMs: number, max = 4_000): Run {
  const flow = new FlowLimit<{ startedAt: number }>({ initial: 20, max, targetMs });
  const arriving = new Map<number, { startedAt: number }[]>();
  const queue: { startedAt: number }[] = [];
  const answers = new Map<number, { startedAt: number }[]>();
  const at = <T>(map: Map<number, T[]>, time: number, item: T) => {
    const there = map.get(time);
    if (there === undefined) map.set(time, [item]);
    else there.push(item);
  };
  let head = 0;
  let underWay = 0;
  let credit = 0;
  let taken = 0;
  let offered = 0;
  let seed = 1;
  const random = () => {
    seed = (seed * 48_271) % 2_147_483_647;
    return seed / 2_147_483_647;
  };
  const run: Run = { share: 0, longestAnswerMs: 0, mostUnderWay: 0, limit: 0 };
  for (let now = 0; now < runMs; now++) {
    const rate = now >= (peer.changesAtMs ?? runMs) ? peer.laterRate! : peer.rate;
    for (const request of arriving.get(now) ?? []) queue.push(request);
    arriving.delete(now);
    credit += rate / 1000;
    if (now > settleMs) offered += rate / 1000;
    if (peer.burstMs === 0 || now % peer.burstMs === 0) {
      for (; credit >= 1 && head < queue.length; credit--) {
        at(answers, now + 1, queue[head++]!);
        if (now > settleMs) taken++;
      }
      // What it could not use is lost.
      credit = Math.min(credit, 1);
    }
    const answered = answers.get(now);
    answers.delete(now);
    for (const request of answered ?? []) {
      run.longestAnswerMs = Math.max(run.longestAnswerMs, now - request.startedAt);
      flow.answered(request, underWay--);
    }
    if (answered !== undefined) flow.adapt(now);
    if (now % 100 === 0) flow.checkProbe(now);
    while (underWay < flow.limit) {
      const request = { startedAt: now };
      underWay++;
      if (flow.needsProbe) flow.probe(request, now);
      at(arriving, now + 1 + Math.round(peer.networkMs(random())), request);
    }
    run.mostUnderWay = Math.max(run.mostUnderWay, underWay);
  }
  run.share = taken / offered;
  run.limit = flow.limit;
  return run;
}

describe('requests under way follow what the peer takes', () => {
  const rates = fc.integer({ min: 0, max: 300 }).map((n) => Math.round(50 * 10 ** (n / 100)));

  test('50 to 50 000 a second, steadily: nine tenths of it and more, and no answer takes long', () => {
    fc.assert(
      fc.property(rates, fc.integer({ min: 1, max: 70 }), (rate, networkMs) => {
        const run = simulate({ rate, burstMs: 0, networkMs: () => networkMs }, 6_000, 2_000);
        assert.ok(run.share > 0.9, `${rate}: ${run.share}`);
        assert.ok(run.longestAnswerMs < timeoutMs / 10, `${rate}: ${run.longestAnswerMs} ms`);
      }),
      { numRuns: 25 },
    );
  });

  test('in bursts as well, up to one a second', () => {
    fc.assert(
      fc.property(
        fc.integer({ min: 50, max: 2_000 }),
        fc.constantFrom(20, 100, 250, 400, 600, 1_000),
        (rate, burstMs) => {
          const run = simulate({ rate, burstMs, networkMs: () => 20 }, 30 * burstMs + 4_000, 12 * burstMs + 500);
          assert.ok(run.share > 0.9, `${rate} every ${burstMs} ms: ${run.share}`);
          assert.ok(run.longestAnswerMs < timeoutMs / 3, `${rate} every ${burstMs} ms: ${run.longestAnswerMs} ms`);
        },
      ),
      { numRuns: 40 },
    );
  });

  test('through a peer that becomes ten times slower in mid-send, every answer comes well before the deadline', () => {
    fc.assert(
      fc.property(fc.integer({ min: 50, max: 50_000 }), fc.constantFrom(0, 100, 250), (rate, burstMs) => {
        const networkMs = () => 30;
        const slower = { rate, laterRate: rate / 10, changesAtMs: 3_000, burstMs, networkMs };
        const run = simulate(slower, 20_000, 4_000);
        assert.ok(run.longestAnswerMs < (timeoutMs * 2) / 3, `${rate}: ${run.longestAnswerMs} ms`);
        assert.ok(run.share > 0.9, `${rate}: ${run.share}`);
        assert.ok(run.limit <= Math.max(2 * fewestRequests, (rate / 10) * 1.5), `${rate}: ${run.limit}`);
      }),
      { numRuns: 20 },
    );
  });

  test('and through one that becomes ten times faster: it is given more', () => {
    fc.assert(
      fc.property(fc.integer({ min: 50, max: 5_000 }), (rate) => {
        const faster = { rate, laterRate: rate * 10, changesAtMs: 3_000, burstMs: 0, networkMs: () => 30 };
        const run = simulate(faster, 10_000, 5_000);
        assert.ok(run.share > 0.9, `${rate}: ${run.share}`);
      }),
      { numRuns: 20 },
    );
  });

  test('where answers only take long, and nothing queues, the limit grows to the most that is allowed', () => {
    const endless = 1e9;
    for (const networkMs of [
      () => 50,
      (random: number) => 20 + 60 * random,
      (random: number) => (random < 0.98 ? 100 : 1_500),
      () => 900,
      (random: number) => 300 + 1_200 * random,
      () => 3_000,
    ]) {
      const run = simulate({ rate: endless, burstMs: 0, networkMs }, 60_000, 0, 1_000);
      assert.ok(run.limit >= 900, `${networkMs}: ${run.limit}`);
    }
  });

  test('a request that is never answered does not stop the measuring', () => {
    const flow = new FlowLimit<object>({ initial: 20, max: 1_000, targetMs });
    flow.probe({}, 0);
    for (let n = 0; n < 39; n++) flow.answered({}, 20);
    flow.adapt(10);
    assert.equal(flow.limit, 20);
    flow.answered({}, 20);
    flow.adapt(10);
    assert.equal(flow.limit, 40);
  });
});
