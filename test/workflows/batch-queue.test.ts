import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import type { ProviderName } from '../../domain/device.ts';
import { type Batch, BatchQueue, type BatchReport } from '../../workflows/batch-queue.ts';

/**
 * A line: when | what happens | what is started then, as there is always a place free | when the next batch is due.
 *
 * `a1` is batch 1, of APNs; `f2` is batch 2, of FCM; `w3` is of a provider to come. A wait is given from the moment of the report:
 * `a1 waiting 50` at 10 ends at 60. `a1 lost 50`: it ended without a report and is looked at again then. `next run`: the rest is
 * for a run that continues as new.
 */
const rules: Record<string, Record<string, string>> = {
  'Without any wait': {
    'batches are started in the order in which they were planned': `
        0 | plan a1 f2 a3 | a1 f2 a3 | none
       10 | plan f4       | f4       | none`,
    'a batch that is finished or stopped is not started again': `
        0 | plan a1 a2  | a1 a2 | none
       10 | a1 finished |       | none
       20 | a2 stopped  |       | none`,
  },
  'A batch that is refused for now': {
    'is started again when its time has come, and not before': `
        0 | plan a1        | a1 | none
       10 | a1 deferred 50 |    | 60
       59 |                |    | 60
       60 |                | a1 | none`,
    'keeps no other batch waiting': `
        0 | plan a1        | a1 | none
       10 | a1 deferred 50 |    | 60
       20 | plan a2        | a2 | 60`,
    'comes before those that have not been started yet': `
        0 | plan a1        | a1    | none
       10 | a1 deferred 50 |       | 60
       60 | plan a2        | a1 a2 | none`,
    'goes on as often as it takes': `
        0 | plan a1         | a1 | none
       10 | a1 deferred 50  |    | 60
       60 |                 | a1 | none
       70 | a1 deferred 500 |    | 570
      570 |                 | a1 | none
      580 | a1 finished     |    | none`,
    'is one of many: the earliest is due next, and of those due the first that reported is started first': `
        0 | plan a1 a2 a3  | a1 a2 a3 | none
       10 | a1 deferred 50 |          | 60
       10 | a2 deferred 30 |          | 40
       10 | a3 deferred 80 |          | 40
       70 |                | a1 a2    | 90`,
  },
  'A blocked provider': {
    'keeps its own batches waiting, not those of another, whatever it is called': `
        0 | plan w1       | w1    | none
       10 | w1 waiting 50 |       | 60
       20 | plan w2 f3 a4 | f3 a4 | 60`,
    'is tried by one batch at a time, and no other follows before it has reported': `
        0 | plan a1       | a1 | none
       10 | a1 waiting 50 |    | 60
       20 | plan a2 a3    |    | 60
       60 |               | a1 | a report
       90 |               |    | a report
      100 | a1 waiting 50 |    | 150
      150 |               | a1 | a report`,
    'is free again for all its batches when the one that tried was sent': `
        0 | plan a1       | a1    | none
       10 | a1 waiting 50 |       | 60
       20 | plan a2 a3    |       | 60
       60 |               | a1    | a report
       70 | a1 finished   | a2 a3 | none`,
    'is free again when the one that tried was refused for reasons of its devices': `
        0 | plan a1         | a1 | none
       10 | a1 waiting 50   |    | 60
       20 | plan a2         |    | 60
       60 |                 | a1 | a report
       70 | a1 deferred 500 | a2 | 570`,
    'is not tried while one that was under way may still tell': `
        0 | plan a1 a2    | a1 a2 | none
       10 | a1 waiting 50 |       | a report
       99 |               |       | a report
      100 | a2 waiting 50 |       | 150`,
    'is free as soon as one that was under way says so; a batch that waited keeps its time': `
        0 | plan a1 a2    | a1 a2 | none
       10 | a1 waiting 50 |       | a report
       20 | plan a3       |       | a report
       30 | a2 finished   | a3    | 60
       60 |               | a1    | none`,
    'waits as long as the last report says': `
        0 | plan a1 a2 a3  | a1 a2 a3 | none
       10 | a1 waiting 500 |          | a report
       20 | a2 waiting 900 |          | a report
       30 | a3 waiting 20  |          | 50
       50 |                | a3       | a report`,
    'is one wait of two for a batch that was refused as well: the later counts': `
        0 | plan a1 a2      | a1 a2 | none
       10 | a1 deferred 200 |       | 210
       20 | a2 waiting 50   |       | 70
       70 |                 | a2    | a report
       80 | a2 waiting 400  |       | 480
      210 |                 |       | 480
      480 |                 | a1    | a report`,
  },
  'A batch that ended without a report': {
    'is started again after its delay': `
        0 | plan a1    | a1 | none
       10 | a1 lost 50 |    | 60
       60 |            | a1 | none`,
    'says nothing about its provider: if that is blocked, another one tries': `
        0 | plan a1       | a1 | none
       10 | a1 waiting 50 |    | 60
       20 | plan a2 a3    |    | 60
       60 |               | a1 | a report
       70 | a1 lost 50    | a2 | a report
       80 | a2 finished   | a3 | 120`,
  },
  'A host that alone holds up a batch': {
    'keeps no other batch of the provider waiting': `
        0 | plan a1               | a1 | none
       10 | a1 waiting 50 at prod |    | 60
       20 | plan a2               | a2 | 60`,
    'is tried by one batch at a time': `
        0 | plan a1 a2            | a1 a2 | none
       10 | a1 waiting 50 at prod |       | 60
       20 | a2 waiting 50 at prod |       | 70
       69 |                       |       | 70
       70 |                       | a1    | a report
       80 | a1 waiting 50 at prod |       | 130
      130 |                       | a2    | a report`,
    'is none of the others': `
        0 | plan a1 a2            | a1 a2 | none
       10 | a1 waiting 50 at prod |       | 60
       20 | a2 waiting 10 at test |       | 30
       30 |                       | a2    | 60
       60 |                       | a1    | none`,
    "is not another provider's of that name": `
        0 | plan a1 f2            | a1 f2 | none
       10 | a1 waiting 50 at prod |       | 60
       10 | f2 waiting 10 at prod |       | 20
       20 |                       | f2    | 60
       30 | f2 finished           |       | 60`,
    'is free when the one that tried was sent: all that waited for it go on, before their time': `
        0 | plan a1 a2 a3         | a1 a2 a3 | none
       10 | a1 waiting 50 at prod |          | 60
       10 | a2 waiting 80 at prod |          | 90
       20 | a3 waiting 10 at prod |          | 30
       30 |                       | a1       | a report
       40 | a1 finished           | a2 a3    | none`,
    'is blocked again when one of those that went on says so, until another one is sent': `
        0 | plan a1 a2 a3         | a1 a2 a3 | none
       10 | a1 waiting 50 at prod |          | 60
       10 | a2 waiting 50 at prod |          | 60
       10 | a3 waiting 50 at prod |          | 60
       60 |                       | a1       | a report
       70 | a1 finished           | a2 a3    | none
       80 | a2 waiting 50 at prod |          | a report
       90 | a3 finished           | a2       | none`,
    'is free when the one that tried waits for something else': `
        0 | plan a1 a2            | a1 a2 | none
       10 | a1 waiting 50 at prod |       | 60
       20 | a2 waiting 50 at prod |       | 70
       70 |                       | a1    | a report
       80 | a1 waiting 90 at test | a2    | 170`,
    'stays blocked when a batch is sent that never waited for it': `
        0 | plan a1 a2            | a1 a2 | none
       10 | a1 waiting 50 at prod |       | 60
       20 | a2 finished           |       | 60`,
    'says nothing about a blocked provider: both must be free': `
        0 | plan a1 a2            | a1 a2 | none
       10 | a1 waiting 50 at prod |       | 60
       20 | a2 waiting 80         |       | 100
      100 |                       | a1    | a report
      110 | a1 waiting 50 at prod | a2    | a report
      120 | a2 finished           |       | 160
      160 |                       | a1    | none`,
    'is no longer known of a batch that ended without a report': `
        0 | plan a1 a2            | a1 a2 | none
       10 | a1 waiting 50 at prod |       | 60
       20 | a2 waiting 50 at prod |       | 70
       70 |                       | a1    | a report
       80 | a1 lost 20            | a2    | 100
      100 |                       | a1    | none`,
  },
  'A run that continues as new': {
    'waits as the run before would have waited': `
        0 | plan a1 a2 f3           | a1 a2 f3 | none
       10 | a1 deferred 500         |          | 510
       10 | a2 deferred 20          |          | 30
       20 | f3 waiting 80           |          | 30
       25 | next run, plan a1 a2 f3 |          | 30
       30 |                         | a2       | 100
      100 |                         | f3       | 510
      510 |                         | a1       | none`,
    'starts at once what was due and what had not been started': `
        0 | plan a1        | a1    | none
       10 | a1 deferred 20 |       | 30
       30 | next run       |       | none
       30 | plan a1 a2     | a1 a2 | none`,
    'still has one batch at a time try a provider whose time has come': `
        0 | plan a1       | a1 | none
       10 | a1 waiting 20 |    | 30
       30 | next run      |    | none
       30 | plan a1 a2    | a1 | a report`,
    'still has one batch at a time try a host, then all that wait for it': `
        0 | plan a1 a2 a3         | a1 a2 a3 | none
       10 | a1 waiting 50 at prod |          | 60
       10 | a2 waiting 50 at prod |          | 60
       20 | a3 waiting 90 at prod |          | 110
       30 | next run              |          | none
       30 | plan a1 a2 a3 a4      | a4       | 110
      110 |                       | a1       | a report
      120 | a1 finished           | a2 a3    | none`,
    'starts at once what a host holds up no longer': `
        0 | plan a1 a2 a3         | a1 a2 a3 | none
       10 | a1 waiting 50 at prod |          | 60
       10 | a2 waiting 50 at prod |          | 60
       10 | a3 waiting 90 at prod |          | 100
      100 |                       | a1       | a report
      110 | a1 finished, next run |          | none
      110 | plan a2 a3            | a2 a3    | none`,
    'hands on what it was handed and has not listed': `
        0 | plan a1 a2             | a1 a2 | none
       10 | a1 deferred 500        |       | 510
       10 | a2 waiting 600 at prod |       | 510
       20 | next run               |       | none
       20 | next run               |       | none
       30 | plan a1 a2             |       | 510
      510 |                        | a1    | 610`,
  },
};

const providers: Record<string, ProviderName> = { a: 'apns', f: 'fcm', w: 'webpush' as ProviderName };

function batchOf(name: string): Batch {
  return { seq: Number(name.slice(1)), provider: providers[name[0]!]!, size: 10_000 };
}

function nameOf({ seq, provider }: Batch): string {
  return `${provider[0]}${seq}`;
}

function takeAll(queue: BatchQueue, now: number): Batch[] {
  const taken: Batch[] = [];
  for (let batch = queue.take(now); batch; batch = queue.take(now)) taken.push(batch);
  return taken;
}

/** @returns the queue that goes on */
function happen(queue: BatchQueue, event: string, now: number): BatchQueue {
  const [subject = '', ...words] = event.split(' ');
  if (event === 'next run') return new BatchQueue(JSON.parse(JSON.stringify(queue.waits(now))));
  if (subject === 'plan') queue.add(words.map(batchOf));
  else if (subject !== '') {
    const [how, wait = '0', , host] = words;
    const waitMs = Number(wait);
    const report = { status: how as BatchReport['status'], waitMs, ...(host && { host }) };
    if (how === 'lost') queue.retryAt(batchOf(subject), now + waitMs);
    else queue.report(batchOf(subject), report, now);
  }
  return queue;
}

function nextDue({ nextDueAt }: BatchQueue): string {
  if (nextDueAt === undefined) return 'none';
  return nextDueAt === Number.POSITIVE_INFINITY ? 'a report' : String(nextDueAt);
}

for (const [subject, table] of Object.entries(rules)) {
  describe(subject, () => {
    for (const [rule, lines] of Object.entries(table)) {
      test(rule, () => {
        let queue = new BatchQueue();
        for (const line of lines.trim().split('\n')) {
          const [at, event = '', started, due] = line.split('|').map((cell) => cell.trim());
          const now = Number(at);
          for (const part of event.split(', ')) queue = happen(queue, part, now);
          const found = { started: takeAll(queue, now).map(nameOf).join(' '), due: nextDue(queue) };
          assert.deepEqual(found, { started, due }, line.trim());
        }
      });
    }
  });
}

test('tells how many have not been started yet, and how many wait to be started again', () => {
  const queue = new BatchQueue();
  queue.add([batchOf('a1'), batchOf('a2'), batchOf('a3')]);
  const first = queue.take(0)!;
  assert.deepEqual([queue.fresh, queue.waiting], [2, 0]);
  queue.report(first, { status: 'deferred', waitMs: 50 }, 0);
  assert.deepEqual([queue.fresh, queue.waiting], [2, 1]);
});

test('reads what a run carried over that knew nothing of hosts', () => {
  const queue = new BatchQueue({ batches: { 1: 50 }, providers: { apns: 70 } });
  queue.add([batchOf('a1'), batchOf('f2')]);
  assert.deepEqual(takeAll(queue, 0).map(nameOf), ['f2']);
  assert.equal(queue.nextDueAt, 70);
});

test('a report of a kind that is not known is refused', () => {
  const queue = new BatchQueue();
  queue.add([batchOf('a1')]);
  const report = { status: 'gone' as 'finished', waitMs: 0 };
  assert.throws(() => queue.report(queue.take(0)!, report, 0), /no case for "gone"/);
});
