/**
 * Notifications to one device each, launched one after the other through a whole run: what is planned, sent and closed in one step must
 * keep the same promises while everything is killed, frozen and restarted.
 */
import { setTimeout as sleep } from 'node:timers/promises';
import type { Kysely } from 'kysely';
import { auditBooks } from '../../db/audit.ts';
import type { Database } from '../../db/schema.ts';
import type { NotificationView } from '../../local/api-client.ts';
import type { Stack } from '../../local/stack.ts';
import { apnsDeviceToken, type DeviceBehaviour, fcmRegistrationToken } from '../../simulator/device-tokens.ts';
import { createOperator, launchOnce } from './operator.ts';
import { came, patiently } from './patience.ts';

const everyMs = 400;
const devices = 60;
/** For each send, once the large one has ended and nothing is disturbed any more. */
const endMs = 60_000;
/** Of the large audience's devices and their new tokens, the numbers are below it. */
const firstToken = 2_000_000_000;
/** By device, over and over. */
const behaviours: DeviceBehaviour[] = ['accept', 'accept', 'unavailableOnce', 'accept', 'accept', 'unregistered'];

export class SmallSends {
  readonly #stack: Stack;
  readonly #name: string;
  readonly #firstToken: number;
  readonly #ids: string[] = [];
  readonly #stop = new AbortController();
  #launching: Promise<void> | undefined;

  constructor(stack: Stack, seed: number, runNumber: number) {
    this.#stack = stack;
    this.#name = `small-${runNumber}-${seed}`;
    this.#firstToken = firstToken + runNumber * 1_000;
  }

  /** Rows for the import; no property selects them for the large send. */
  *rows(): Generator<object> {
    for (let n = 0; n < devices; n++) {
      const [number, behaviour] = [this.#firstToken + n, behaviours[n % behaviours.length]!];
      const [platform, device_token] =
        n % 2 === 0
          ? ['ios', apnsDeviceToken(number, behaviour)]
          : ['android', fcmRegistrationToken(number, behaviour)];
      yield { external_id: `${this.#name}-${n}`, platform, device_token };
    }
  }

  start(): void {
    this.#launching = this.#launchAll();
    // Met where it is awaited.
    this.#launching.catch(() => {});
  }

  /** Launches no more, waits for the end of all, and looks at each. @returns how many there were, and every broken promise */
  async end(db: Kysely<Database>): Promise<{ sends: number; problems: string[] }> {
    this.#stop.abort();
    await this.#launching;
    const problems = await Promise.all(this.#ids.map((id) => this.#problemsOf(id, db)));
    return { sends: this.#ids.length, problems: problems.flat() };
  }

  async #launchAll(): Promise<void> {
    const { apiUrl, apiKey } = this.#stack;
    for (let n = 0; !this.#stop.signal.aborted; n++) {
      const title = `${this.#name}-send-${n}`;
      const audience = { external_ids: [`${this.#name}-${n % devices}`] };
      this.#ids.push(
        await launchOnce(apiUrl, apiKey!, { title, message: { title: 'To you' }, audience, launch: true } as {
          title: string;
        }),
      );
      await sleep(everyMs);
    }
  }

  async #problemsOf(id: string, db: Kysely<Database>): Promise<string[]> {
    const { apiUrl, apiKey, simulator } = this.#stack;
    const operator = createOperator(apiUrl, apiKey!, id);
    let view: NotificationView | undefined;
    const isFinished = await came(async () => {
      view = await operator.look();
      // The run took a credential away for a while.
      if (view?.state === 'halted') await operator.ask('resume');
      return view?.finished_at != null;
    }, endMs);
    if (!isFinished) return [`small send ${id} is ${view?.state} and does not end`];
    const { books, totals } = view!;
    const ledger = await patiently(() => simulator!.control.ledgerSummary(id));
    const faults = await auditBooks(db, id);
    const isMarked = totals!.in_doubt > 0;
    const broken: [boolean, string][] = [
      // Nobody: the device was retired by an earlier one of these sends.
      [books.audience > 1 || books.pending !== 0 || !books.balanced || faults.length > 0, 'its books do not balance'],
      [books.outcomes.accepted === 1 && ledger.accepted === 0, 'accepted in the books, and the provider never got it'],
      [ledger.accepted > 1 && !isMarked, `sent ${ledger.accepted} times, and no mark`],
      [
        books.outcomes.accepted === 0 && ledger.accepted > 0 && !isMarked,
        'the provider took it, and the books do not say so',
      ],
    ];
    return broken.flatMap(([isBroken, what]) => (isBroken ? [`small send ${id}: ${what}`] : []));
  }
}
