/** Reads what a send left behind, from PostgreSQL, Temporal and the simulator. */

import type { Client } from '@temporalio/client';
import { type Kysely, sql } from 'kysely';
import { auditBooks } from '../../db/audit.ts';
import type { Database } from '../../db/schema.ts';
import { notificationWorkflowId } from '../../domain/ids.ts';
import type { SimulatorControl } from '../../simulator/control-client.ts';
import type { ChaosDevices } from './chaos-devices.ts';
import { readTakeovers } from './takeovers.ts';
import type { DeviceEvidence, SendEvidence } from './verify.ts';

/** External ids by id, read before the run begins: a device deleted in mid-send has no other name in the books. */
export async function readDeviceIds(db: Kysely<Database>, name: string): Promise<Map<number, string>> {
  const rows = await db
    .selectFrom('devices')
    .select(['id', 'external_id'])
    .where('external_id', 'like', `${name}-%`)
    .execute();
  return new Map(rows.map((row) => [row.id, row.external_id]));
}

/** Counts devices that are reserved and neither recorded nor deferred: a crash at this moment would leave them in doubt. */
export async function countReserved(db: Kysely<Database>, notificationId: string): Promise<number> {
  const { rows } = await sql<{ devices: number }>`
    select count(*) as devices
    from batches b cross join unnest(b.device_offsets) with ordinality as member (device_offset, ordinal)
    left join deferrals f on f.notification_id = b.notification_id and f.device_id = b.first_device_id + member.device_offset
    where b.notification_id = ${notificationId} and b.finished_at is null
      and coalesce(f.dispatched, member.ordinal <= b.horizon) and get_bit(b.recorded, member.ordinal::integer - 1) = 0
  `.execute(db);
  return rows[0]!.devices;
}

export async function hasEnded(db: Kysely<Database>, notificationId: string): Promise<boolean> {
  const row = await db
    .selectFrom('notifications')
    .select('finished_at')
    .where('id', '=', notificationId)
    .executeTakeFirstOrThrow();
  return row.finished_at !== null;
}

type BooksEvidence = Pick<
  SendEvidence,
  | 'devices'
  | 'devicesPlannedTwice'
  | 'deliveriesOutsideAudience'
  | 'outsidersRetired'
  | 'takeovers'
  | 'notifications'
  | 'batchesAtFault'
>;

export async function readBooks(
  db: Kysely<Database>,
  control: SimulatorControl,
  notificationId: string,
  devices: ChaosDevices,
  externalIds: Map<number, string>,
): Promise<BooksEvidence> {
  const batches = await db
    .selectFrom('batches')
    .select(['first_device_id', 'device_offsets'])
    .where('notification_id', '=', notificationId)
    .execute();
  const planned = batches.flatMap((batch) => batch.device_offsets.map((offset) => batch.first_device_id + offset));
  const audience = new Set(planned);
  const deliveries = await readDeliveries(db, notificationId);
  const retired = await readRetired(db, devices.name);
  const takeovers = await readTakeovers(db, notificationId);
  const timesTakenOver = new Map<number, number>();
  for (const id of takeovers.flat()) timesTakenOver.set(id, (timesTakenOver.get(id) ?? 0) + 1);
  const tokens = [...devices.audience.values()].flatMap((device) => device.tokens.map(({ text }) => text));
  const ledger = new Map((await control.lookup(notificationId, tokens)).map((entry) => [entry.token, entry]));

  const evidence = [...audience].map((id): DeviceEvidence => {
    const device = devices.audience.get(externalIds.get(id) ?? '');
    if (!device) throw new Error(`device ${id} is in the audience and none of this run's`);
    const { externalId, isDeleted, isRegisteredAgain, isMoved } = device;
    return {
      externalId,
      deliveries: deliveries.get(id) ?? [],
      tokens: device.tokens.map(({ text, behaviour }) => {
        const { received = 0, accepted = 0 } = ledger.get(text) ?? {};
        return { behaviour, received, accepted };
      }),
      isDeleted,
      isRegisteredAgain,
      isMoved,
      retiredReason: retired.get(externalId) ?? null,
      takeovers: timesTakenOver.get(id) ?? 0,
    };
  });
  const { notifications } = await db
    .selectFrom('notifications')
    .select((eb) => eb.fn.countAll<number>().as('notifications'))
    .where('title', '=', devices.name)
    .executeTakeFirstOrThrow();
  return {
    devices: evidence,
    devicesPlannedTwice: planned.length - audience.size,
    deliveriesOutsideAudience: [...deliveries.keys()].filter((id) => !audience.has(id)).length,
    outsidersRetired: devices.newOwners.filter(({ externalId }) => retired.has(externalId)).length,
    takeovers: takeovers.map((inFlight) => inFlight.length),
    notifications,
    batchesAtFault: (await auditBooks(db, notificationId)).length,
  };
}

async function readDeliveries(
  db: Kysely<Database>,
  notificationId: string,
): Promise<Map<number, DeviceEvidence['deliveries']>> {
  const rows = await db
    .selectFrom('deliveries')
    .select(['device_id', 'outcome', 'in_doubt', 'attempts'])
    .where('notification_id', '=', notificationId)
    .execute();
  const deliveries = new Map<number, DeviceEvidence['deliveries']>();
  for (const { device_id, outcome, in_doubt, attempts } of rows) {
    const list = deliveries.get(device_id) ?? [];
    list.push({ outcome, inDoubt: in_doubt, attempts });
    deliveries.set(device_id, list);
  }
  return deliveries;
}

/** Reasons by external id. */
async function readRetired(db: Kysely<Database>, name: string): Promise<Map<string, string>> {
  const rows = await db
    .selectFrom('devices')
    .select(['external_id', 'retired_reason'])
    .where('external_id', 'like', `${name}-%`)
    .where('retired_at', 'is not', null)
    .execute();
  return new Map(rows.map((row) => [row.external_id, row.retired_reason ?? '']));
}

export type Leftovers = Pick<SendEvidence, 'openBatches' | 'deferrals' | 'openTransactions' | 'runningWorkflows'> & {
  inFlight: number;
};

/** What must be gone a moment after the end. */
export async function readLeftovers(
  db: Kysely<Database>,
  temporal: Client,
  control: SimulatorControl,
  notificationId: string,
): Promise<Leftovers> {
  const { rows } = await sql<{ batches: number; open: number; deferrals: number; transactions: number }>`
    select
      (select count(*) from batches where notification_id = ${notificationId}) as batches,
      (select count(*) from batches where notification_id = ${notificationId} and finished_at is null) as open,
      (select count(*) from deferrals where notification_id = ${notificationId}) as deferrals,
      (select count(*) from pg_stat_activity
        where datname = current_database() and xact_start < now() - interval '5 seconds') as transactions
  `.execute(db);
  const { batches, open, deferrals, transactions } = rows[0]!;
  return {
    openBatches: open,
    deferrals,
    openTransactions: transactions,
    runningWorkflows: await listRunningWorkflows(temporal, notificationId, batches),
    inFlight: (await control.ledgerSummary(notificationId)).in_flight,
  };
}

export function isClean(leftovers: Leftovers): boolean {
  const { openBatches, deferrals, openTransactions, runningWorkflows, inFlight } = leftovers;
  return openBatches + deferrals + openTransactions + runningWorkflows.length + inFlight === 0;
}

/** Asked by id, since a server's listing lags by a moment. */
async function listRunningWorkflows(client: Client, notificationId: string, batches: number): Promise<string[]> {
  const parent = notificationWorkflowId(notificationId);
  const ids = [parent, ...Array.from({ length: batches }, (_, i) => `${parent}/batch-${i + 1}`)];
  const running: string[] = [];
  for (const id of ids) {
    const status = await client.workflow
      .getHandle(id)
      .describe()
      .then((description) => description.status.name)
      .catch(() => 'NOT_FOUND');
    if (status === 'RUNNING') running.push(id);
  }
  return running;
}
