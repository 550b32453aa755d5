/** Finished books in object storage: the real workflow and SDK, a store in this process with faults on demand, and a foreign one. */
import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import { after, before, describe, test } from 'node:test';
import { gunzipSync } from 'node:zlib';
import {
  CreateBucketCommand,
  CreateMultipartUploadCommand,
  GetObjectCommand,
  ListMultipartUploadsCommand,
  ListObjectsV2Command,
  S3Client,
  UploadPartCommand,
} from '@aws-sdk/client-s3';
import { type BookStore, createBookStore } from '../../activities/book-store.ts';
import { exportBooks } from '../../activities/export-books.ts';
import { startBookExports } from '../../activities/start-book-exports.ts';
import { noteBookStore } from '../../db/book-exports.ts';
import type { Logger } from '../../domain/logger.ts';
import { notificationsTaskQueue } from '../../domain/task-queues.ts';
import { uuidV7 } from '../../domain/uuid-v7.ts';
import {
  noForeignStore,
  type ScriptedStore,
  type StoreFault,
  startForeignStore,
  startScriptedStore,
  type TestStore,
} from '../support/object-store.ts';
import { until } from '../support/until.ts';
import { createSendBench, type SendBench } from './harness.ts';

Object.assign(process.env, { AWS_ACCESS_KEY_ID: 'books', AWS_SECRET_ACCESS_KEY: 'a-secret-of-the-store' });

const stop = new AbortController().signal;
let bench: SendBench;
before(async () => {
  bench = await createSendBench();
});
after(() => bench.close());

const storeAt = ({ endpoint }: TestStore, bucket = 'books'): BookStore =>
  createBookStore({ bucket, endpoint, region: 'us-east-1', prefix: 'carillon/', isPathStyle: true, since: undefined });

/** So many devices that their books take two parts. */
const many = 10_000;

/** A send that has ended, with so many devices; the ids of its messages are long, and no compression makes them shorter. */
async function endedSend(devices: number): Promise<string> {
  const id = uuidV7();
  const { pool } = bench.api.database;
  const { rows } = await pool.query(
    `insert into devices (app_id, external_id, provider, platform, device_token)
      select 1, $1 || n, 'fcm', 'android', $1 || n from generate_series(1, $2) n returning id`,
    [id.slice(0, 30), devices],
  );
  await pool.query(
    `insert into notifications (id, app_id, state, message, audience, in_doubt_policy, title, launched_at, device_ceiling, planned_at)
      values ($1, 1, 'sending', '{"title": "secret words"}', '{}', 'redeliver', 'secret words', now(), 1, now())`,
    [id],
  );
  await pool.query(
    `insert into batches (notification_id, seq, provider, first_device_id, device_offsets, size, recorded)
      select $1, 1 + (n - 1) / 10000, 'fcm', min(device), array_agg((device - first)::integer order by device), count(*), repeat('0', count(*)::integer)::bit varying
      from (select device, n, min(device) over (partition by (n - 1) / 10000) as first
        from unnest($2::bigint[]) with ordinality as d (device, n)) d group by 2, first`,
    [id, rows.map((row) => row.id).sort((a, b) => a - b)],
  );
  await pool.query(
    `insert into delivery_groups
        (notification_id, batch_seq, first_position, positions, outcome, attempts, in_doubt, provider_message_ids)
      select $1::uuid, seq, first, repeat('1', devices)::bit varying, 'accepted', 1, false, (
        select string_agg(message_id, ' ') from generate_series(1, devices) n cross join lateral (
          select string_agg(encode(sha256(($1::uuid || '-' || seq || first || n || k)::bytea), 'base64'), '') as message_id from generate_series(1, 30) k
        ) m
      ) from batches cross join lateral generate_series(0, size - 1, 500) first
      cross join lateral (select least(500, size - first) as devices) d where notification_id = $1::uuid`,
    [id],
  );
  await pool.query(`update notifications set state = 'completed', finished_at = clock_timestamp() where id = $1`, [id]);
  return id;
}

function logger(): Logger & { said: [level: string, message: string, fields: object][] } {
  const said: [string, string, object][] = [];
  const note = (level: string) => (fields: object, message: string) => void said.push([level, message, fields]);
  return { said, debug: note('debug'), info: note('info'), warn: note('warn'), error: note('error') };
}

const upload = (id: string, bookStore: BookStore, log: Logger = logger(), until = stop) =>
  exportBooks({ db: bench.api.database.db, log, bookStore }, { notificationId: id }, until);

const exportedAt = async (id: string) => (await bench.api.request('GET', `/v1/notifications/${id}`)).body.exported_at;

const failed = (fault: string) => (error: Error) => {
  assert.match(error.message, new RegExp(`could not be written to: ${fault}`));
  assert.doesNotMatch(error.message, /secret/);
  return true;
};

/** What any store must take: with an S3 client of its own to look into it. */
function suite(name: string, start: () => Promise<TestStore>, skip: string | false): void {
  describe(name, { skip }, () => {
    let store: TestStore;
    let s3: S3Client;
    const Bucket = 'books';
    before(async () => {
      store = await start();
      s3 = new S3Client({ endpoint: store.endpoint, region: 'us-east-1', forcePathStyle: true });
      if (!('objects' in store)) await s3.send(new CreateBucketCommand({ Bucket }));
    });
    after(() => store.close());

    async function objects(id: string): Promise<Record<string, Buffer>> {
      const read = async (Key: string) =>
        Buffer.from(await (await s3.send(new GetObjectCommand({ Bucket, Key }))).Body!.transformToByteArray());
      const keys =
        'objects' in store
          ? [...(store as ScriptedStore).objects.keys()]
          : ((await s3.send(new ListObjectsV2Command({ Bucket }))).Contents ?? []).map(({ Key }) => Key!);
      const own = keys.filter((key) => key.includes(id));
      const bodies = await Promise.all(
        own.map((key) => ('objects' in store ? (store as ScriptedStore).objects.get(key)! : read(key))),
      );
      return Object.fromEntries(own.map((key, n) => [key.slice(key.indexOf(id) + id.length + 1), bodies[n]!]));
    }
    const openUploads = async () => (await s3.send(new ListMultipartUploadsCommand({ Bucket }))).Uploads ?? [];

    test('the books of a send that ends are there, whole, and the summary says how to check that', async () => {
      const bookStore = storeAt(store);
      const worker = await bench.startWorker({ bookStore });
      const { db } = bench.api.database;
      const since = await noteBookStore(db, bookStore.name);
      const send = await bench.launch({ devices: 250, message: { title: 'secret words' } });
      await send.until('completed');
      const queue = notificationsTaskQueue(bench.temporal.taskQueuePrefix);
      const started = new Map<string, number>();
      await startBookExports(worker.deps, bench.temporal.client, queue, since, started);
      assert.ok(started.has(send.id));
      await until(async () => (await exportedAt(send.id)) !== null);
      await worker.stop();
      const { 'deliveries.ndjson.gz': file, 'summary.json': text, ...rest } = await objects(send.id);
      assert.deepEqual(rest, {});
      const lines = gunzipSync(file!)
        .toString()
        .trimEnd()
        .split('\n')
        .map((line) => JSON.parse(line));
      const { text: streamed } = await bench.api.request(
        'GET',
        `/v1/notifications/${send.id}/deliveries?format=ndjson`,
      );
      assert.deepEqual(
        lines,
        streamed
          .trimEnd()
          .split('\n')
          .map((line) => {
            const { cursor: _, notification_id: __, ...delivery } = JSON.parse(line);
            return delivery;
          }),
      );
      const summary = JSON.parse(text!.toString());
      assert.deepEqual(
        [summary.id, summary.app, summary.state, summary.audience],
        [send.id, 'default', 'completed', 250],
      );
      assert.equal(summary.outcomes.accepted, 250);
      assert.deepEqual(
        { ...summary.deliveries, key: summary.deliveries.key.replace(/\d{4}\/\d\d\/\d\d/, 'DAY') },
        {
          key: `carillon/default/DAY/${send.id}/deliveries.ndjson.gz`,
          ...{ lines: 250, bytes: file!.length, sha256: createHash('sha256').update(file!).digest('hex') },
        },
      );
      assert.doesNotMatch(`${text}`, /secret words/);
    });

    test('in several parts, and written again: the same objects', async () => {
      const id = await endedSend(many);
      const bookStore = storeAt(store);
      assert.equal((await upload(id, bookStore))!.lines, many);
      const first = await objects(id);
      assert.ok(first['deliveries.ndjson.gz']!.length > 8 * 1024 * 1024);
      assert.equal(gunzipSync(first['deliveries.ndjson.gz']!).toString().trimEnd().split('\n').length, many);
      const at = await exportedAt(id);
      await upload(id, bookStore);
      assert.deepEqual(await objects(id), first);
      assert.equal(await exportedAt(id), at);
      assert.deepEqual(await openUploads(), []);
    });

    test('parts that a dead worker left behind are forgotten by the next attempt', async () => {
      const id = await endedSend(5);
      const day = new Date().toISOString().slice(0, 10).replaceAll('-', '/');
      const { rows } = await bench.api.database.pool.query(
        `select to_char(finished_at at time zone 'UTC', 'YYYY/MM/DD') as day from notifications where id = $1`,
        [id],
      );
      const Key = `carillon/default/${rows[0].day ?? day}/${id}/deliveries.ndjson.gz`;
      const { UploadId } = await s3.send(new CreateMultipartUploadCommand({ Bucket, Key }));
      await s3.send(new UploadPartCommand({ Bucket, Key, UploadId, PartNumber: 1, Body: 'left behind' }));
      assert.equal((await openUploads()).length, 1);
      await upload(id, storeAt(store));
      assert.deepEqual(await openUploads(), []);
    });

    test('a bucket that is not there is told once, and nothing counts as uploaded', async () => {
      const ids = [await endedSend(1), await endedSend(1)];
      const log = logger();
      const nowhere = storeAt(store, 'nowhere');
      for (const id of [...ids, ...ids]) await assert.rejects(upload(id, nowhere, log), failed('NoSuchBucket'));
      assert.deepEqual(
        log.said.map(([level]) => level),
        ['warn'],
      );
      for (const id of ids) assert.equal(await exportedAt(id), null);
    });
  });
}

suite('a store in this process', startScriptedStore, false);
suite('a store that nobody of this project wrote', startForeignStore, noForeignStore);

test('a store that knows another secret refuses', { skip: noForeignStore }, async () => {
  const store = await startForeignStore();
  try {
    const id = await endedSend(1);
    process.env.AWS_SECRET_ACCESS_KEY = 'another';
    await assert.rejects(upload(id, storeAt(store)), failed('SignatureDoesNotMatch \\(403\\)'));
  } finally {
    process.env.AWS_SECRET_ACCESS_KEY = 'a-secret-of-the-store';
    await store.close();
  }
});

describe('a store with faults', () => {
  let store: ScriptedStore;
  before(async () => {
    store = await startScriptedStore();
  });
  after(() => store.close());

  /** Faults from one request on, until they are mended. */
  function disturb(fault: StoreFault, isMeant: (request: { key: string; part: number | undefined }) => boolean): void {
    store.faultOf = (request) => (isMeant(request) ? fault : undefined);
  }
  const mend = () => {
    store.faultOf = () => undefined;
  };
  const keysOf = (id: string) =>
    [...store.objects.keys()].filter((key) => key.includes(id)).map((key) => key.split('/').at(-1));

  test('that refuses is told once, for all the sends that wait for it, and once when it takes them again', async () => {
    const ids = [await endedSend(3), await endedSend(3)];
    const log = logger();
    const bookStore = storeAt(store);
    disturb('refuse', () => true);
    for (const id of [...ids, ...ids])
      await assert.rejects(upload(id, bookStore, log), failed('AccessDenied \\(403\\)'));
    for (const id of ids) assert.deepEqual([keysOf(id), await exportedAt(id)], [[], null]);
    mend();
    for (const id of ids) await upload(id, bookStore, log);
    assert.deepEqual(
      log.said.filter(([, message]) => message !== 'books uploaded').map(([level]) => level),
      ['warn', 'info'],
    );
    assert.doesNotMatch(JSON.stringify(log.said), /a-secret-of-the-store/);
  });

  test('that dies in the middle of a part has nothing whole; the next attempt stores all of it', async () => {
    const id = await endedSend(many);
    disturb('die', ({ part }) => part === 2);
    await assert.rejects(upload(id, storeAt(store)), failed('ECONNRESET'));
    assert.deepEqual([keysOf(id), await exportedAt(id)], [[], null]);
    mend();
    await upload(id, storeAt(store));
    assert.deepEqual([keysOf(id), store.parts.size], [['deliveries.ndjson.gz', 'summary.json'], 0]);
  });

  test('that takes the deliveries and not the summary: without the summary the books do not count as whole', async () => {
    const id = await endedSend(3);
    disturb('refuse', ({ key }) => key.endsWith('summary.json'));
    await assert.rejects(upload(id, storeAt(store)), failed('AccessDenied'));
    assert.deepEqual([keysOf(id), await exportedAt(id)], [['deliveries.ndjson.gz'], null]);
    mend();
    await upload(id, storeAt(store));
    assert.deepEqual(keysOf(id), ['deliveries.ndjson.gz', 'summary.json'], 'the summary is the last');
  });

  test('an upload that is asked to stop between its parts stops, and the next attempt stores the same as one that was not', async () => {
    const id = await endedSend(many);
    const stopping = new AbortController();
    store.faultOf = ({ part }) => {
      if (part === 2) stopping.abort();
      return undefined;
    };
    await assert.rejects(upload(id, storeAt(store), logger(), stopping.signal));
    assert.deepEqual([keysOf(id), await exportedAt(id)], [[], null]);
    mend();
    const again = await upload(id, storeAt(store));
    const objects = () => [...store.objects].filter(([key]) => key.includes(id));
    const first = objects();
    assert.deepEqual(await upload(id, storeAt(store)), again);
    assert.deepEqual(objects(), first);
    assert.equal(store.parts.size, 0);
  });

  test('that is silent holds up no send', async () => {
    disturb('hang', () => true);
    const bookStore = storeAt(store);
    const worker = await bench.startWorker({ bookStore });
    const ids = await Promise.all(Array.from({ length: 30 }, () => endedSend(1)));
    const queue = notificationsTaskQueue(bench.temporal.taskQueuePrefix);
    await startBookExports(worker.deps, bench.temporal.client, queue, new Date(0), new Map());
    const send = await bench.launch({ devices: 120 });
    await send.until('completed');
    await send.checkBooks({ accepted: 120 });
    for (const id of ids) assert.equal(await exportedAt(id), null);
    mend();
    await worker.stop();
    for (const id of ids) await bench.temporal.client.workflow.getHandle(`export-${id}`).terminate();
  });
});

describe('an upload', () => {
  test('is started once, for sends that were launched and ended since the bucket was set', async () => {
    const { db, pool } = bench.api.database;
    const before = await endedSend(1);
    const name = `s3://${uuidV7()}`;
    const since = await noteBookStore(db, name);
    assert.deepEqual(await noteBookStore(db, name), since, 'whenever a worker starts');
    const [ended, exported] = [await endedSend(1), await endedSend(1)];
    await pool.query('update notifications set exported_at = now() where id = $1', [exported]);
    const draft = await bench.launch({ isLaunched: false });
    await draft.call('cancel');
    const asked: string[] = [];
    const client = {
      withDeadline: (_: number, work: () => Promise<void>) => work(),
      workflow: { start: async (_: string, { workflowId }: { workflowId: string }) => void asked.push(workflowId) },
    } as never;
    const started = new Map<string, number>();
    await startBookExports({ db }, client, 'notifications', since, started);
    await startBookExports({ db }, client, 'notifications', since, started);
    assert.deepEqual(asked, [`export-${ended}`]);
    await startBookExports({ db }, client, 'notifications', new Date(0), new Map());
    assert.ok(asked.includes(`export-${before}`) && !asked.includes(`export-${draft.id}`));
  });

  test('of books that are deleted while they are read has no summary', async () => {
    const store = await startScriptedStore();
    try {
      const id = await endedSend(5);
      await bench.api.database.pool.query('delete from delivery_groups where notification_id = $1', [id]);
      await assert.rejects(upload(id, storeAt(store)), /0 outcomes were read of 5/);
      assert.ok(![...store.objects.keys()].some((key) => key.endsWith('summary.json')));
      assert.equal(await exportedAt(id), null);
    } finally {
      await store.close();
    }
  });

  test('of a send that has not ended, or that is gone, writes nothing', async () => {
    const store = await startScriptedStore();
    try {
      const id = await endedSend(1);
      const { pool } = bench.api.database;
      await pool.query(`update notifications set state = 'sending', finished_at = null where id = $1`, [id]);
      assert.equal(await upload(id, storeAt(store)), undefined);
      await assert.rejects(upload(uuidV7(), storeAt(store)));
      assert.equal(store.objects.size, 0);
    } finally {
      await store.close();
    }
  });
});
