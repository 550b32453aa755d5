import { z } from '@hono/zod-openapi';
import { recordChange } from '../../db/audit-entries.ts';
import { resumeLanes } from '../../db/halted-lanes.ts';
import { listLanes, listMessageDays, type MessageDay } from '../../db/message-counts.ts';
import { inTransaction } from '../../db/transaction.ts';
import { providerNames } from '../../domain/device.ts';
import type { ApiDependencies } from '../dependencies.ts';
import { invalidField } from '../http/api-error.ts';
import { count } from '../http/counts.ts';
import { bodyProblems, problems } from '../http/problem-schema.ts';
import { createRouter, defineRoute } from '../http/router.ts';
import { outcomeCounts } from '../notifications/schemas.ts';
import { fromLane, laneSchema } from './lane-schema.ts';

const tags = ['Messages'];
const dayMs = 86_400_000;
const maxDays = 366;
/** PostgreSQL has no year 0. */
const firstDay = '0001-01-01';

const dayInQuery = z.iso
  .date()
  .refine((day) => day >= firstDay, 'There is no such day.')
  .optional();

const daySchema = z
  .object({
    day: z.iso.date(),
    provider: z
      .enum(providerNames)
      .nullable()
      .openapi({ description: 'Null: recipients without a device, skipped as they were accepted.' }),
    entered: count.openapi({ description: 'entered = sum of outcomes + pending.' }),
    pending: count.openapi({ description: 'Devices without an outcome.' }),
    outcomes: outcomeCounts,
    reasons: z.record(z.string(), z.record(z.string(), count)).openapi({ description: 'By outcome and reason.' }),
    in_doubt: count.openapi({ description: 'Devices that may have got a message more than once.' }),
  })
  .openapi('MessageDay');

const lanes = z.array(laneSchema);

const statsRoute = defineRoute({
  method: 'get',
  path: '/v1/messages/stats',
  scope: 'messages:read',
  tags,
  summary: 'The books of all messages, by day and provider',
  description: `Days are those of UTC on which messages were accepted; both ends are included, ${maxDays} at most, by default the last seven. Days without a message are left out.`,
  request: { query: z.strictObject({ since: dayInQuery, until: dayInQuery }) },
  responses: {
    200: {
      description: 'The books, and the lanes that send.',
      content: {
        'application/json': { schema: z.object({ days: z.array(daySchema), lanes }).openapi('MessageStats') },
      },
    },
    ...problems(),
  },
});

const resumeRoute = defineRoute({
  method: 'post',
  path: '/v1/messages/resume',
  scope: 'messages:send',
  tags,
  summary: 'Send again after a fault is mended',
  description: 'Ends the halt of all lanes at once. Without it they try again by themselves. A repeat is harmless.',
  responses: {
    200: {
      description: 'The lanes as they are now.',
      content: { 'application/json': { schema: z.object({ lanes }).openapi('LaneList') } },
    },
    ...problems(...bodyProblems),
  },
});

export function messageBooks({ db, now }: ApiDependencies) {
  const router = createRouter();
  router
    .openapi(statsRoute, async (c) => {
      const { id: appId } = c.var.app;
      const span = daysOf(c.req.valid('query'), now?.() ?? new Date());
      const [days, lanes] = await Promise.all([listMessageDays(db, appId, span), listLanes(db, appId)]);
      return c.json({ days: days.map(fromDay), lanes: lanes.map(fromLane) }, 200);
    })
    .openapi(resumeRoute, async (c) => {
      const { id: appId } = c.var.app;
      await inTransaction(db, async (trx) => {
        const lanes = await resumeLanes(trx, appId);
        if (lanes === 0) return;
        const target = { kind: 'app', id: c.var.app.name };
        await recordChange(trx, c.var.actor, { appId, action: 'lanes.resume', target, changes: { lanes } });
      });
      return c.json({ lanes: (await listLanes(db, appId)).map(fromLane) }, 200);
    });
  // Other methods: neither is the id of a message.
  for (const { path } of [statsRoute, resumeRoute]) router.all(path, (c) => c.notFound());
  return router;
}

/** @throws {ApiError} 422 where they are none, or too many */
function daysOf(
  asked: { since?: string | undefined; until?: string | undefined },
  now: Date,
): { since: string; until: string } {
  const until = asked.until ?? dayOf(now.getTime());
  const since = asked.since ?? dayOf(Math.max(Date.parse(until) - 6 * dayMs, Date.parse(firstDay)));
  const days = (Date.parse(until) - Date.parse(since)) / dayMs + 1;
  if (days < 1) throw invalidField('since', 'Must not be after until.');
  if (days > maxDays) throw invalidField('since', `Must be at most ${maxDays} days before the end.`);
  return { since, until };
}

function dayOf(ms: number): string {
  return new Date(ms).toISOString().slice(0, 10);
}

function fromDay({ inDoubt, reasons, ...books }: MessageDay): z.infer<typeof daySchema> {
  return { ...books, reasons: reasons as Record<string, Record<string, number>>, in_doubt: inDoubt };
}
