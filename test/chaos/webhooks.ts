/**
 * A webhook of the app through a whole run: whatever is killed meanwhile, its receiver is told of every move of every send in its order, and
 * of every message that ended; what it refuses once comes again.
 */
import { type Kysely, sql } from 'kysely';
import { Webhook } from 'standardwebhooks';
import type { Database } from '../../db/schema.ts';
import type { Stack } from '../../local/stack.ts';
import { type ReceivedWebhook, startReceiver, type WebhookReceiver } from '../support/webhook-receiver.ts';
import { request } from './operator.ts';
import { came } from './patience.ts';

const types = ['notification.state_changed', 'notification.finished', 'messages.finished'];
/** Every so many events are refused when they come first. */
const refusesOneIn = 7;
/** Once nothing is disturbed any more. */
const endMs = 120_000;

interface Told {
  type: string;
  // biome-ignore lint/suspicious/noExplicitAny: of every type.
  data: any;
}

export class ChaosWebhooks {
  readonly #stack: Stack;
  readonly #receiver: WebhookReceiver;
  readonly #id: string;
  readonly #problems: string[] = [];
  /** By `webhook-id`, in the order in which they were taken first. */
  readonly #told = new Map<string, Told>();

  private constructor(stack: Stack, receiver: WebhookReceiver, { id, secret }: { id: string; secret: string }) {
    this.#stack = stack;
    this.#receiver = receiver;
    this.#id = id;
    const refused = new Set<string>();
    let events = 0;
    receiver.answer = (webhook) => {
      const eventId = String(webhook.headers['webhook-id']);
      this.#verify(webhook, secret);
      if (!this.#told.has(eventId) && !refused.has(eventId) && events++ % refusesOneIn === 0) {
        refused.add(eventId);
        return { status: 500 };
      }
      if (!this.#told.has(eventId)) this.#told.set(eventId, webhook.body);
      return { status: 204 };
    };
  }

  static async start(stack: Stack): Promise<ChaosWebhooks> {
    const receiver = await startReceiver();
    const answer = await request('POST', `${stack.apiUrl}/v1/webhooks`, stack.apiKey!, { url: receiver.url, types });
    if (answer.status !== 201) throw new Error(`no webhook: ${answer.status} ${await answer.text()}`);
    return new ChaosWebhooks(stack, receiver, (await answer.json()) as { id: string; secret: string });
  }

  /** Waits until all is delivered. @returns how many events there were, and every broken promise */
  async end(db: Kysely<Database>): Promise<{ events: number; problems: string[] }> {
    const isDelivered = await came(async () => {
      const { rows } = await sql<{ waiting: number }>`
        with due as (
          update webhook_deliveries set next_at = now()
            where webhook_id = ${this.#id} and state = 'pending' and next_at > now() + interval '10 seconds'
        )
        select (select count(*) from webhook_feed) +
          (select count(*) from webhook_deliveries where webhook_id = ${this.#id} and state <> 'delivered') as waiting
      `.execute(db);
      return rows[0]!.waiting === 0;
    }, endMs);
    if (!isDelivered) this.#problems.push('webhooks wait and are not delivered');
    this.#compareMoves(await this.#readStates(db));
    this.#compareMessages(await this.#readMessages(db));
    await request('DELETE', `${this.#stack.apiUrl}/v1/webhooks/${this.#id}`, this.#stack.apiKey!);
    return { events: this.#told.size, problems: this.#problems };
  }

  async close(): Promise<void> {
    await this.#receiver.close();
  }

  #verify({ text, headers }: ReceivedWebhook, secret: string): void {
    try {
      new Webhook(secret).verify(text, headers as Record<string, string>);
    } catch (error) {
      this.#problems.push(`a webhook is not signed as it must be: ${error instanceof Error ? error.message : error}`);
    }
  }

  /** Each move begins where the one before ended; the last is the state in the books; the end is told once, and last. */
  #compareMoves(states: Map<string, string>): void {
    const ofSends = [...this.#told.values()].filter(({ type }) => type.startsWith('notification.'));
    const bySend = Map.groupBy(ofSends, ({ data }) => data.notification_id as string);
    for (const [id, state] of states) {
      const told = bySend.get(id) ?? [];
      const moves = told.filter(({ type }) => type === 'notification.state_changed').map(({ data }) => data);
      const ends = told.filter(({ type }) => type === 'notification.finished');
      const chain = moves.map(({ from, to }) => `${from} to ${to}`).join(', ');
      if (moves.at(-1)?.to !== state) this.#problems.push(`send ${id} is ${state}, and told were: ${chain}`);
      if (moves.some(({ from }, i) => i > 0 && from !== moves[i - 1].to)) {
        this.#problems.push(`send ${id}: moves came in another order: ${chain}`);
      }
      if (ends.length !== 1) this.#problems.push(`send ${id}: its end was told as ${ends.length} events`);
    }
  }

  #compareMessages(outcomes: Map<string, string>): void {
    const told = new Map<string, string>();
    for (const { type, data } of this.#told.values()) {
      if (type !== 'messages.finished') continue;
      for (const { message_id, outcome } of data.messages) {
        if (told.has(message_id)) this.#problems.push(`message ${message_id} was told by two events`);
        told.set(message_id, outcome);
      }
    }
    for (const [id, outcome] of outcomes) {
      if (told.get(id) !== outcome) this.#problems.push(`message ${id} ended as ${outcome}, told as ${told.get(id)}`);
    }
  }

  /** Of the sends that ended since the webhook was made. */
  async #readStates(db: Kysely<Database>): Promise<Map<string, string>> {
    const { rows } = await sql<{ id: string; state: string }>`
      select id, state from notifications n where finished_at > (select created_at from webhooks where id = ${this.#id})
    `.execute(db);
    return new Map(rows.map(({ id, state }) => [id, state]));
  }

  async #readMessages(db: Kysely<Database>): Promise<Map<string, string>> {
    const { rows } = await sql<{ message_id: string; outcome: string }>`
      select message_id, outcome from message_entries
      where finished_at > (select created_at from webhooks where id = ${this.#id})
    `.execute(db);
    return new Map(rows.map(({ message_id, outcome }) => [message_id, outcome]));
  }
}
