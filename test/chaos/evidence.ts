/** Reads what a send left behind, from PostgreSQL, Temporal and the simulator. */

import type { Client } from '@temporalio/client';
import { type Kysely, sql } from 'kysely';
import { auditBooks } from '../../db/deliveries.ts';
import type { Database } from '../../db/schema.ts';
import { notificationWorkflowId } from '../../domain/ids.ts';
import type { Outcome } from '../../domain/outcome.ts';
import type { SimulatorControl } from '../../simulator/control-client.ts';
import type { ChaosDevices } from './chaos-devices.ts';
import type { DeviceEvidence, SendEvidence } from './verify.ts';

/** Ids by external id, taken before the run begins: who is deleted in mid-send has no other name in the books. */
export async function readDeviceIds(db: Kysely<Database>, name: string): Promise<Map<number, string>> {
  const rows = await db
    .selectFrom('devices')
    .select(['id', 'external_id'])
    .where('external_id', 'like', `${name}-%`)
    .execute();
  return new Map(rows.map((row) => [row.id, row.external_id]));
}

/** Devices that a crash at this moment leaves in doubt: reserved, and neither recorded nor deferred. */
export async function countInFlight(db: Kysely<Database>, notificationId: string): Promise<number> {
  const { rows } = await sql<{ devices: number }>`
    select count(*) as devices
    from batches b cross join unnest(b.device_ids) with ordinality as member (device_id, ordinal)
    left join deferrals f on f.notification_id = b.notification_id and f.device_id = member.device_id
    where b.notification_id = ${notificationId} and b.finished_at is null
      and case when f.device_id is null then member.ordinal <= b.horizon else f.dispatched end
      and not exists (
        select from deliveries e where e.notification_id = b.notification_id and e.device_id = member.device_id
      )
  `.execute(db);
  return rows[0]!.devices;
}

export async function readDevices(
  db: Kysely<Database>,
  control: SimulatorControl,
  notificationId: string,
  devices: ChaosDevices,
  externalIds: Map<number, string>,
): Promise<Pick<SendEvidence, 'devices' | 'devicesPlannedTwice' | 'deliveriesOutsideAudience'>> {
  const batches = await db
    .selectFrom('batches')
    .select('device_ids')
    .where('notification_id', '=', notificationId)
    .execute();
  const planned = batches.flatMap((batch) => batch.device_ids);
  const audience = new Set(planned);
  const rows = await db
    .selectFrom('deliveries')
    .select(['device_id', 'outcome', 'in_doubt'])
    .where('notification_id', '=', notificationId)
    .execute();
  const deliveries = new Map<number, { outcome: Outcome; inDoubt: boolean }[]>();
  for (const row of rows) {
    const list = deliveries.get(row.device_id) ?? [];
    list.push({ outcome: row.outcome, inDoubt: row.in_doubt });
    deliveries.set(row.device_id, list);
  }
  const retired = new Map(
    (
      await db
        .selectFrom('devices')
        .select(['id', 'retired_reason'])
        .where('external_id', 'like', `${devices.name}-%`)
        .where('retired_at', 'is not', null)
        .execute()
    ).map((row) => [row.id, row.retired_reason]),
  );
  const tokens = [...devices.byExternalId.values()].flatMap((device) => device.tokens.map(({ text }) => text));
  const accepted = new Map(
    (await control.lookup(notificationId, tokens)).map((entry) => [entry.token, entry.accepted]),
  );

  const evidence = [...audience].map((deviceId): DeviceEvidence => {
    const device = devices.byExternalId.get(externalIds.get(deviceId) ?? '');
    if (!device) throw new Error(`device ${deviceId} is in the audience and none of this run's`);
    return {
      deviceId,
      deliveries: deliveries.get(deviceId) ?? [],
      tokens: device.tokens.map(({ text, behaviour }) => ({ behaviour, accepted: accepted.get(text) ?? 0 })),
      isDeleted: device.isDeleted,
      isRegisteredAgain: device.isRegisteredAgain,
      retiredReason: retired.get(deviceId) ?? null,
    };
  });
  return {
    devices: evidence,
    devicesPlannedTwice: planned.length - audience.size,
    deliveriesOutsideAudience: rows.filter((row) => !audience.has(row.device_id)).length,
  };
}

export async function readLeftovers(
  db: Kysely<Database>,
  notificationId: string,
): Promise<Pick<SendEvidence, 'batchesAtFault' | 'openBatches' | 'deferrals' | 'openTransactions'>> {
  const { rows } = await sql<{ open: number; deferrals: number; transactions: number }>`
    select
      (select count(*) from batches where notification_id = ${notificationId} and finished_at is null) as open,
      (select count(*) from deferrals where notification_id = ${notificationId}) as deferrals,
      (select count(*) from pg_stat_activity where datname = current_database() and xact_start < now() - interval '5 seconds')
        as transactions
  `.execute(db);
  const { open, deferrals, transactions } = rows[0]!;
  const faults = await auditBooks(db, notificationId);
  return { batchesAtFault: faults.length, openBatches: open, deferrals, openTransactions: transactions };
}

/** Workflows of this send that still run. Asked by id: the listing of a server is behind by a moment. */
export async function listRunningWorkflows(client: Client, notificationId: string, batches: number): Promise<string[]> {
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
