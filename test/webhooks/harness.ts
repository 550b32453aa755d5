/** Webhooks on a real PostgreSQL and real receivers; time is data. */
import type { ActivityDeps } from '../../activities/activities.ts';
import { deliverWebhooks } from '../../activities/webhooks/deliver-webhooks.ts';
import { WebhookSender } from '../../activities/webhooks/webhook-sender.ts';
import { createMasterKeys } from '../../db/master-keys.ts';
import { collectFeedOfAllApps } from '../../db/webhook-feed.ts';
import { insertWebhook } from '../../db/webhooks.ts';
import { workerActor } from '../../domain/actor.ts';
import { loadConfig } from '../../domain/config.ts';
import type { JsonObject } from '../../domain/json.ts';
import type { WebhookFilter, WebhookStep } from '../../domain/webhook.ts';
import { parseNetwork } from '../../domain/webhook-address.ts';
import { createTestDatabase, type TestDatabase } from '../support/database.ts';
import { startReceiver, type WebhookReceiver } from '../support/webhook-receiver.ts';

export const masterKeys = createMasterKeys([{ id: 'test', key: new Uint8Array(32).fill(7) }])!;

export interface WebhookBench {
  database: TestDatabase;
  receiver: WebhookReceiver;
  /** What workers logged as a warning or an error. */
  logged: Record<string, unknown>[];
  add(
    types: string[],
    options?: { filter?: WebhookFilter; url?: string; appId?: number },
  ): Promise<{ id: string; secret: string }>;
  /** As what happens in the app does. */
  feed(type: string, subject: string | null, data?: JsonObject): Promise<void>;
  /** All that was fed becomes events. */
  collect(): Promise<void>;
  /** One call of the activity, which waits for nothing new. */
  deliver(id: string, stop?: AbortSignal, sender?: WebhookSender): Promise<WebhookStep>;
  /** As if all that is pending had waited long enough. */
  elapse(id: string): Promise<void>;
  // biome-ignore lint/suspicious/noExplicitAny: rows of every shape.
  rows(text: string, values?: unknown[]): Promise<any[]>;
  createSender(timeoutMs?: number): WebhookSender;
  close(): Promise<void>;
}

export async function createWebhookBench(): Promise<WebhookBench> {
  const database = await createTestDatabase();
  const { db, pool } = database;
  const receiver = await startReceiver();
  const logged: Record<string, unknown>[] = [];
  const nothing = () => {};
  const note = (fields: object, message: string) => void logged.push({ ...fields, message });
  const log = { debug: nothing, info: nothing, warn: note, error: note };
  const config = { ...loadConfig({ DATABASE_URL: database.url }).worker, shutdownGraceMs: 200 };
  const senders: WebhookSender[] = [];
  const rows = async (text: string, values: unknown[] = []) => (await pool.query(text, values)).rows;

  function createSender(timeoutMs = 5_000): WebhookSender {
    const sender = new WebhookSender({
      ...{ masterKeys, timeoutMs },
      places: { allowedNetworks: [parseNetwork('127.0.0.0/8')] },
    });
    senders.push(sender);
    return sender;
  }
  const usualSender = createSender();

  return {
    ...{ database, receiver, logged, rows, createSender },
    async add(types, { filter = {}, url = receiver.url, appId = 1 } = {}) {
      const made = await insertWebhook(db, workerActor, appId, { url, types, filter }, masterKeys, 20);
      return { id: made!.webhook.id, secret: made!.secret };
    },
    async feed(type, subject, data = {}) {
      await rows('select feed_webhooks(1, $1, $2, $3)', [type, subject, JSON.stringify(data)]);
    },
    async collect() {
      while ((await collectFeedOfAllApps(db))!.changes > 0);
    },
    deliver(id, stop = new AbortController().signal, webhooks = usualSender) {
      const deps = {
        db,
        pool,
        config,
        log,
        webhooks,
        webhookLingerMs: 0,
        random: () => 0.5,
      } as unknown as ActivityDeps;
      return deliverWebhooks(deps, { webhookId: id }, stop);
    },
    async elapse(id) {
      await rows(`update webhook_deliveries set next_at = now() where webhook_id = $1 and state = 'pending'`, [id]);
      await rows(`update webhooks set blocked_until = '-infinity' where id = $1`, [id]);
    },
    async close() {
      await Promise.all([receiver.close(), ...senders.map((sender) => sender.close())]);
      await database.close();
    },
  };
}
