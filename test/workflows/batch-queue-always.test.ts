/** What holds for a batch queue in every order of events. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { type Batch, BatchQueue } from '../../workflows/batch-queue.ts';

const step = fc.oneof(
  { weight: 2, arbitrary: fc.record({ step: fc.constant('plan'), provider: fc.constantFrom('apns', 'fcm') }) },
  { weight: 4, arbitrary: fc.record({ step: fc.constant('take') }) },
  {
    weight: 4,
    arbitrary: fc.record({
      step: fc.constant('report'),
      /** Which of the open batches. */
      pick: fc.nat(),
      how: fc.constantFrom('finished', 'deferred', 'waiting', 'waiting for a host', 'waiting for a host', 'lost'),
      waitMs: fc.nat(200),
      host: fc.constantFrom('prod', 'test'),
    }),
  },
  { weight: 2, arbitrary: fc.record({ step: fc.constant('pass'), ms: fc.nat(200) }) },
  { weight: 1, arbitrary: fc.record({ step: fc.constant('next run') }) },
);
const steps = fc.array(step, { maxLength: 100, size: 'max' });
type Step = typeof step extends fc.Arbitrary<infer S> ? S : never;

interface Fate {
  batch: Batch;
  isOpen: boolean;
  isFinished: boolean;
  /** Its own time; 0 for one that waits for a host alone. */
  dueAt: number;
  /** What keeps it waiting besides, "apns" or "apns at prod": all must be free. */
  needs: string[];
}

/** A send that does what was drawn, and remembers what it told the queue. */
class Send {
  queue = new BatchQueue();
  now = 1_000;
  readonly fates: Fate[] = [];
  readonly blockedUntil = new Map<string, number>();
  /** Told of each start, before it counts as open. */
  readonly #onStart: (fate: Fate) => void;

  constructor(onStart: (fate: Fate, send: Send) => void = () => {}) {
    this.#onStart = (fate) => onStart(fate, this);
  }

  get open(): Fate[] {
    return this.fates.filter((fate) => fate.isOpen);
  }

  /** Neither open nor finished. */
  get left(): Fate[] {
    return this.fates.filter((fate) => !fate.isOpen && !fate.isFinished);
  }

  do(step: Step): void {
    if (step.step === 'plan') this.#plan(step.provider as 'apns');
    if (step.step === 'take') this.take();
    if (step.step === 'pass') this.now += step.ms;
    if (step.step === 'next run') this.nextRun();
    const { open } = this;
    if (step.step === 'report' && open.length > 0) this.report(open[step.pick % open.length]!, step);
  }

  #plan(provider: 'apns' | 'fcm'): void {
    const batch = { seq: this.fates.length + 1, provider, size: 1 };
    this.fates.push({ batch, isOpen: false, isFinished: false, dueAt: 0, needs: [provider] });
    this.queue.add([batch]);
  }

  take(): Fate | undefined {
    const batch = this.queue.take(this.now);
    if (batch === undefined) return undefined;
    const fate = this.fates[batch.seq - 1]!;
    this.#onStart(fate);
    fate.isOpen = true;
    return fate;
  }

  report(fate: Fate, { how, waitMs, host }: { how: string; waitMs: number; host?: string }): void {
    const { batch, needs } = fate;
    const [provider, tried] = needs as [string, string?];
    const until = this.now + waitMs;
    Object.assign(fate, { isOpen: false, isFinished: how === 'finished', dueAt: until, needs: [provider] });
    if (how === 'lost') {
      this.queue.retryAt(batch, until);
      return;
    }
    if (tried) this.blockedUntil.delete(tried);
    if (how === 'waiting for a host') {
      const blocked = `${provider} at ${host}`;
      this.blockedUntil.set(blocked, until);
      Object.assign(fate, { dueAt: 0, needs: [provider, blocked] });
      this.queue.report(batch, { status: 'waiting', waitMs, host: host! }, this.now);
      return;
    }
    if (how === 'waiting') this.blockedUntil.set(provider, until);
    else this.blockedUntil.delete(provider);
    this.queue.report(batch, { status: how as 'finished', waitMs }, this.now);
  }

  drain(): void {
    for (const fate of this.open) this.report(fate, { how: 'lost', waitMs: 50 });
  }

  nextRun(): void {
    this.drain();
    this.queue = new BatchQueue(JSON.parse(JSON.stringify(this.queue.waits(this.now))));
    this.queue.add(this.left.map((fate) => fate.batch));
    // What a host holds up no longer is started like any other.
    for (const fate of this.left) fate.needs = fate.needs.filter((name, n) => n === 0 || this.blockedUntil.has(name));
  }
}

function play(steps: Step[], onStart?: (fate: Fate, send: Send) => void): Send {
  const send = new Send(onStart);
  for (const step of steps) send.do(step);
  return send;
}

test('every batch is started until it reports that it is finished, and none is open twice', () => {
  fc.assert(
    fc.property(steps, (steps) => {
      const send = play(steps, (fate) => assert.ok(!fate.isOpen && !fate.isFinished));
      for (let rounds = 0; ; rounds++) {
        assert.ok(rounds <= 2 * send.fates.length, 'it goes on without end');
        while (send.take());
        const { nextDueAt } = send.queue;
        for (const fate of send.open) send.report(fate, { how: 'finished', waitMs: 0 });
        if (nextDueAt === undefined) break;
        // What waits for a report has it now.
        if (nextDueAt !== Number.POSITIVE_INFINITY) send.now = Math.max(send.now, nextDueAt);
      }
      assert.deepEqual(send.left, []);
    }),
  );
});

test('a waiting batch is never started before its time, nor before that of its provider and host', () => {
  const check = ({ dueAt, needs }: Fate, { now, blockedUntil }: Send) => {
    assert.ok(dueAt <= now);
    for (const name of needs) assert.ok((blockedUntil.get(name) ?? 0) <= now);
  };
  fc.assert(fc.property(steps, (steps) => void play(steps, check)));
});

test('never two at a time try a blocked provider or host', () => {
  const check = ({ needs }: Fate, { open, blockedUntil }: Send) => {
    for (const name of needs) if (blockedUntil.has(name)) assert.ok(!open.some((other) => other.needs.includes(name)));
  };
  fc.assert(fc.property(steps, (steps) => void play(steps, check)));
});

test('no batch waits longer than it must: nothing is started only while every batch left has a reason to wait', () => {
  fc.assert(
    fc.property(steps, (steps) => {
      const send = play(steps);
      while (send.take());
      const { left, open, now, blockedUntil } = send;
      const mustWait = ({ dueAt, needs }: Fate) =>
        dueAt > now ||
        needs.some((name) => {
          const until = blockedUntil.get(name);
          return until !== undefined && (until > now || open.some((other) => other.needs.includes(name)));
        });
      assert.ok(left.every(mustWait));
    }),
  );
});

test('the next batch is due exactly when one may be started', () => {
  fc.assert(
    fc.property(steps, (steps) => {
      const send = play(steps);
      for (let n = 0; n < 100; n++) {
        const { nextDueAt } = send.queue;
        assert.equal(nextDueAt === undefined, send.left.length === 0);
        if (nextDueAt === undefined) return;
        if (nextDueAt === Number.POSITIVE_INFINITY) {
          assert.notEqual(send.open.length, 0);
          return;
        }
        if (nextDueAt > send.now) {
          assert.equal(send.queue.take(nextDueAt - 1), undefined);
          send.now = nextDueAt;
        }
        assert.ok(send.take());
      }
    }),
  );
});

test('a run that continues as new waits as the run before would have', () => {
  fc.assert(
    fc.property(steps, (steps) => {
      const send = play(steps);
      send.drain();
      const { now } = send;
      // What is due has no order.
      const dueAt = () => send.left.length > 0 && Math.max(now, send.queue.nextDueAt!);
      const [before, waits] = [dueAt(), send.queue.waits(now)];
      assert.deepEqual(new BatchQueue(waits).waits(now), waits);
      send.nextRun();
      assert.equal(dueAt(), before);
      for (const { batches } of Object.values(waits.hosts!)) batches.sort((a, b) => a - b);
      assert.deepEqual(send.queue.waits(now), waits);
    }),
  );
});
