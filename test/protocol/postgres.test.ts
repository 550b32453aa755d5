import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import type { Kysely } from 'kysely';
import { type Claim, claimBatch, lockBatch } from '../../db/batches.ts';
import { transactionWithClient } from '../../db/connect.ts';
import { isRefusedByDatabase } from '../../db/database-error.ts';
import { noteDoubts, storeDeferrals } from '../../db/deferrals.ts';
import { FencedError } from '../../db/fenced-error.ts';
import { pauseNotification, resumeNotification } from '../../db/notification-moves.ts';
import { recordDeliveries } from '../../db/record-deliveries.ts';
import type { Database } from '../../db/schema.ts';
import { settleBatch } from '../../db/settle-batch.ts';
import { reserveWindow, returnReserved } from '../../db/windows.ts';
import { createRandom } from '../../simulator/random.ts';
import { createDeliveryBench, type DeliveryBench, type TestSend } from '../delivery/harness.ts';
import { groupsOf } from '../support/outcomes.ts';
import { type Counts, countOf, type Devices, each, none, positionOf, withCount } from './devices.ts';
import * as model from './postgres.ts';
import { settingOf } from './setting.ts';
import { start } from './state.ts';

const rounds = 40;
const longestRound = 25;
const setting = settingOf({ devices: 4 });
const { guards, devices } = setting;

let bench: DeliveryBench;
before(async () => {
  bench = await createDeliveryBench();
});
after(() => bench.close());

const random = createRandom(1);
const below = (limit: number): number => Math.floor(random() * limit);
const someDevices = (): Devices => below(1 << devices);

/** One statement, done to the model's books and to those of PostgreSQL. Both answer a word, or do it. */
interface Statement {
  name: string;
  ofModel: () => model.Books | string;
  real: () => Promise<unknown>;
}

interface Round {
  send: TestSend;
  books: model.Books;
  /** The last one holds. */
  claims: Claim[];
}

test("the model's statements do what PostgreSQL's do, whatever comes before", async (t) => {
  const done = new Map<string, number>();
  for (let i = 0; i < rounds; i++) {
    const round: Round = { send: await bench.launch({ devices }), books: start(setting).books, claims: [] };
    for (let j = 0; j < longestRound && !round.books.isFinished; j++) {
      const { name, ofModel, real } = anyStatement(round);
      const [expected, answer] = [ofModel(), await answerOf(real)];
      const word = typeof expected === 'string' ? expected : 'done';
      assert.equal(answer, word, name);
      if (typeof expected !== 'string') round.books = expected;
      assert.deepEqual(await readBooks(round.send), round.books, name);
      done.set(`${name}: ${word}`, (done.get(`${name}: ${word}`) ?? 0) + 1);
    }
  }
  for (const [what, times] of done) t.diagnostic(`${what}, ${times} times`);
  const words = [...done.keys()].map((what) => what.replace(/.*: /, ''));
  assert.deepEqual([...new Set(words)].sort(), ['done', 'fenced', 'paused', 'refused']);
});

function anyStatement(round: Round): Statement {
  const claim = round.claims.at(random() < 0.65 ? -1 : -2);
  if (claim === undefined || random() < 0.15) return claimed(round);
  const kinds = [doubtsNoted, reserved, reserved, stored, stored, returned, askedElsewhere, moved];
  return random() < 0.03 ? settled(round, claim) : kinds[below(kinds.length)]!(round, claim);
}

function claimed({ send, books, claims }: Round): Statement {
  const real = async () => {
    claims.push((await claimBatch(bench.database.db, send.id, send.batches[0]!.seq))!);
  };
  return { name: 'claimBatch', ofModel: () => model.claimBatch(books, guards), real };
}

function doubtsNoted({ books }: Round, claim: Claim): Statement {
  const real = () => noteDoubts(bench.database.db, claim);
  return { name: 'noteDoubts', ofModel: () => model.noteDoubts(books, claim, guards), real };
}

function reserved({ send, books }: Round, claim: Claim): Statement {
  const window = { devices: someDevices() || 1, areFresh: random() < 0.5 };
  const positions = window.areFresh ? each(window.devices).map(positionOf) : [];
  const deferredIds = window.areFresh ? [] : idsOf(send, window.devices);
  const asked = { positions, deferredIds, providerScope: 'test' };
  return {
    name: window.areFresh ? 'reserve_window, fresh' : 'reserve_window, deferred',
    ofModel: () => model.reserveWindow(books, claim.fence, window, guards),
    real: async () => (await reserveWindow(bench.database.pool, claim, asked)).answer,
  };
}

function stored({ send, books }: Round, claim: Claim): Statement {
  const records = random() < 0.4 ? none : someDevices() & someDevices();
  const chunk = { records, unsent: records & someDevices(), deferrals: someDevices() & ~records };
  const doubts = below(1 << (2 * devices));
  const ended = records & someDevices();
  return {
    name: records === none ? 'storeDeferrals' : 'record_deliveries',
    ofModel: () => model.storeChunk(books, claim.fence, { ...chunk, doubts, ended }, guards),
    real: () =>
      recordDeliveries(bench.database.pool, claim, groupsOf(claim, outcomesOf(send, chunk, doubts)), {
        deferrals: deferralsOf(send, chunk.deferrals, doubts),
        noLongerDeferred: idsOf(send, ended),
      }),
  };
}

function returned({ send, books }: Round, claim: Claim): Statement {
  const from = random() < 0.5 ? undefined : below(devices + 1);
  const deferred = someDevices();
  const undispatched = { position: from, deferredIds: idsOf(send, deferred) };
  return {
    name: 'returnReserved',
    ofModel: () => model.returnReserved(books, claim.fence, { from, deferred }, guards),
    real: () => inTransaction((trx) => returnReserved(trx, claim, undispatched)),
  };
}

function askedElsewhere({ send, books }: Round, claim: Claim): Statement {
  const chosen = someDevices();
  const real = () =>
    inTransaction(async (trx) => {
      await lockBatch(trx, claim);
      await storeDeferrals(trx, claim, deferralsOf(send, chosen, 0));
    });
  return { name: 'askElsewhere', ofModel: () => model.storeElsewhere(books, claim.fence, chosen, guards), real };
}

function settled({ books }: Round, claim: Claim): Statement {
  const real = () =>
    transactionWithClient(bench.database.pool, (trx, client) => settleBatch(trx, client, claim, 'cancelled'));
  return { name: 'settleBatch', ofModel: () => model.settleBatch(books, claim.fence, guards), real };
}

function moved({ send, books }: Round): Statement {
  const isPaused = books.state === 'paused';
  const move = isPaused ? resumeNotification : pauseNotification;
  return {
    name: isPaused ? 'resume' : 'pause',
    ofModel: () => ({ ...books, state: isPaused ? 'sending' : 'paused' }),
    real: () => move(bench.database.db, 1, send.id),
  };
}

function inTransaction(run: (trx: Parameters<typeof lockBatch>[0]) => Promise<unknown>): Promise<unknown> {
  return bench.database.db.transaction().execute(run);
}

async function answerOf(real: () => Promise<unknown>): Promise<string> {
  try {
    const answer = await real();
    return typeof answer === 'string' && answer !== 'go' ? answer : 'done';
  } catch (error) {
    if (error instanceof FencedError) return 'fenced';
    if (isRefusedByDatabase(error)) return 'refused';
    throw error;
  }
}

function idsOf({ deviceIds }: TestSend, set: Devices): number[] {
  return each(set).map((device) => deviceIds[positionOf(device)]!);
}

function outcomesOf(send: TestSend, { records, unsent }: model.Chunk, doubts: Counts) {
  return each(records).map((device) => ({
    deviceId: idsOf(send, device)[0]!,
    outcome: (unsent & device) === none ? ('accepted' as const) : ('expired' as const),
    inDoubt: countOf(doubts, device) > 0,
  }));
}

function deferralsOf(send: TestSend, set: Devices, doubts: Counts) {
  return each(set).map((device) => ({
    deviceId: idsOf(send, device)[0]!,
    ...{ notBefore: new Date(0), attempts: 1, excused: 0, refusedAt: null, reason: 'busy', httpStatus: 429 },
    doubts: countOf(doubts, device),
  }));
}

async function readBooks(send: TestSend): Promise<model.Books> {
  const db: Kysely<Database> = bench.database.db;
  const { state } = await send.read();
  const batches = db.selectFrom('batches').selectAll().where('notification_id', '=', send.id);
  const batch = await batches.executeTakeFirstOrThrow();
  const deferrals = await db.selectFrom('deferrals').selectAll().where('notification_id', '=', send.id).execute();
  const rows = await send.rows();
  const setOf = (found: { deviceId: number }[]) =>
    found.reduce((set, { deviceId }) => set | (1 << send.deviceIds.indexOf(deviceId)), none);
  const waiting = deferrals.map(({ device_id: deviceId, dispatched, doubts }) => ({ deviceId, dispatched, doubts }));
  return {
    ...{ size: batch.size, state: state as model.Books['state'], isExpired: false },
    ...{ fence: batch.fence, horizon: batch.horizon },
    counted: batch.accepted + batch.expired + batch.cancelled + batch.unknown,
    isFinished: batch.finished_at !== null,
    rows: setOf(rows),
    secondRows: none,
    inDoubt: setOf(rows.filter(({ inDoubt }) => inDoubt)),
    unsent: setOf(rows.filter(({ outcome }) => outcome === 'expired' || outcome === 'cancelled')),
    deferrals: setOf(waiting),
    dispatched: setOf(waiting.filter(({ dispatched }) => dispatched)),
    doubts: waiting.reduce((all, device) => withCount(all, setOf([device]), device.doubts), 0),
  };
}
