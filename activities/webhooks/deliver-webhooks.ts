import { SealedTextError } from '../../db/sealed-text.ts';
import {
  claimWebhookOfAnyApp,
  type DueDelivery,
  listDueOfAnyApp,
  readWaitingOfAnyApp,
  recordAttempt,
  releaseWebhookOfAnyApp,
  type WebhookClaim,
} from '../../db/webhook-deliveries.ts';
import { openSecrets } from '../../db/webhooks.ts';
import { pause } from '../../domain/pause.ts';
import type { WebhookStep, WebhookWorkflowInput } from '../../domain/webhook.ts';
import { failuresBeforePause } from '../../domain/webhook-attempt.ts';
import type { ActivityDeps } from '../activities.ts';
import { startGrace } from '../delivery/shutdown-grace.ts';

/** Requests under way at once for one webhook. */
const requestsAtOnce = 8;
/** Read with one look. None of them waits for another, so they may begin in any order. */
const readAhead = 16;
/** How often the webhook is read again, which also shows that it has its worker. */
const claimMs = 3_000;
/** Looks for what came meanwhile. */
const lookMs = 500;
const usualLingerMs = 5_000;
/** Then Temporal hears of it, and its UI shows how it goes. */
const stepMs = 60_000;
/** While the secrets do not open. */
const lockedOutMs = 60_000;
/** Another worker has it. */
const elsewhereMs = 5_000;

/**
 * Delivers what is due to a webhook, several at once and each subject in its order, until nothing is left, the worker stops, or a minute
 * is over. Keyed by the webhook's fence: a second call takes it over, and the first records nothing more. What was sent and not recorded is
 * sent again.
 */
export async function deliverWebhooks(
  deps: ActivityDeps,
  { webhookId }: Pick<WebhookWorkflowInput, 'webhookId'>,
  stop: AbortSignal,
): Promise<WebhookStep> {
  const claim = await claimWebhookOfAnyApp(deps.db, webhookId);
  if (claim === undefined) return { kind: 'gone', waitMs: 0, pending: 0 };
  const run = new WebhookRun(deps, claim, stop);
  const ended = await run.deliver(deps.webhookLingerMs ?? usualLingerMs);
  if (ended === 'taken over') return { kind: 'waiting', waitMs: elsewhereMs, pending: 0 };
  return run.leave(ended);
}

type RunEnd = 'nothing due' | 'stopped' | 'locked out' | 'taken over';

class WebhookRun {
  readonly #deps: ActivityDeps;
  readonly #stop: AbortSignal;
  readonly #grace: ReturnType<typeof startGrace>;
  readonly #lost = new AbortController();
  readonly #giveUp: AbortSignal;
  readonly #underWay = new Map<string, Promise<void>>();
  #ready: DueDelivery[] = [];
  #claim: WebhookClaim;
  #claimedAt = performance.now();
  #isLost = false;
  #failure: { error: unknown } | undefined;
  #secrets: { of: string; open: string[] } | undefined;

  constructor(deps: ActivityDeps, claim: WebhookClaim, stop: AbortSignal) {
    this.#deps = deps;
    this.#claim = claim;
    this.#stop = stop;
    this.#grace = startGrace(stop, deps.config.shutdownGraceMs);
    this.#giveUp = AbortSignal.any([this.#grace.giveUp, this.#lost.signal]);
  }

  async deliver(lingerMs: number): Promise<RunEnd> {
    const startedAt = performance.now();
    let busyAt = startedAt;
    try {
      for (;;) {
        if (performance.now() - this.#claimedAt >= claimMs) await this.#claimAgain();
        if (this.#isLost) return 'taken over';
        if (this.#failure !== undefined) throw this.#failure.error;
        if (this.#stop.aborted || performance.now() - startedAt >= stepMs) return 'stopped';
        const started = await this.#startDue();
        if (started === 'locked out') return 'locked out';
        if (this.#underWay.size > 0) busyAt = performance.now();
        else if (this.#isHeldUp() || performance.now() - busyAt >= lingerMs) return 'nothing due';
        await this.#nextChange();
      }
    } finally {
      await this.#drain();
    }
  }

  /** @returns what the workflow does next */
  async leave(ended: RunEnd): Promise<WebhookStep> {
    const { db } = this.#deps;
    const { id } = this.#claim;
    const claim = await claimWebhookOfAnyApp(db, id, this.#claim.fence);
    if (claim === undefined) return { kind: 'waiting', waitMs: elsewhereMs, pending: 0 };
    const { pending, nextMs } = await readWaitingOfAnyApp(db, id);
    await releaseWebhookOfAnyApp(db, claim);
    const about = {
      pending,
      ...(claim.failingSince !== null && { failingSince: claim.failingSince }),
      ...(claim.failingSince !== null && claim.lastError !== null && { lastError: claim.lastError }),
    };
    if (!claim.isEnabled) return { ...about, kind: 'disabled', waitMs: 0 };
    if (ended === 'stopped') return { ...about, kind: 'stopped', waitMs: 0 };
    if (nextMs === undefined) return { ...about, kind: 'idle', waitMs: 0 };
    const lockedOut = ended === 'locked out' ? lockedOutMs : 0;
    return { ...about, kind: 'waiting', waitMs: Math.max(nextMs, claim.blockedMs, lockedOut) };
  }

  async #startDue(): Promise<'locked out' | undefined> {
    const { db } = this.#deps;
    if (this.#isHeldUp()) return undefined;
    const most = this.#claim.failures < failuresBeforePause ? requestsAtOnce : 1;
    if (this.#underWay.size >= most) return undefined;
    if (this.#ready.length === 0) {
      this.#ready = await listDueOfAnyApp(db, this.#claim.id, {
        limit: readAhead,
        underWay: [...this.#underWay.keys()],
      });
    }
    if (this.#ready.length === 0) return undefined;
    const secrets = await this.#openSecrets();
    if (secrets === undefined) return 'locked out';
    for (const delivery of this.#ready.splice(0, most - this.#underWay.size)) {
      const sending = this.#send(delivery, secrets).finally(() => this.#underWay.delete(delivery.eventId));
      this.#underWay.set(delivery.eventId, sending);
    }
    return undefined;
  }

  /** Disabled, or asked for patience. */
  #isHeldUp(): boolean {
    return !this.#claim.isEnabled || this.#claim.blockedMs > 0;
  }

  async #send(delivery: DueDelivery, secrets: string[]): Promise<void> {
    const { db, log, webhooks, random = Math.random } = this.#deps;
    const { eventId, type, at, data } = delivery;
    const { id: webhookId, url } = this.#claim;
    const names = { webhookId, host: new URL(url).host, eventId, type };
    const body = JSON.stringify({ type, timestamp: at.toISOString(), data });
    try {
      const attempt = await webhooks!.send({ url, secrets, eventId, body }, this.#giveUp);
      const recorded = await recordAttempt(db, this.#claim, delivery, attempt, random());
      if (recorded === undefined) {
        this.#isLost = true;
        return;
      }
      const { verdict, disabled } = recorded;
      if (verdict.kind === 'delivered') return;
      log.info(
        { ...names, ...attempt, attempt: delivery.attempts + 1, verdict: verdict.kind },
        'webhook not delivered',
      );
      if (disabled !== undefined) {
        log.warn({ ...names, reason: disabled, failingSince: this.#claim.failingSince }, 'webhook disabled');
      }
      // It is read again before the next request: it may be disabled, or to be left alone.
      await this.#claimAgain();
    } catch (err) {
      // Nothing is known of it, so it stays pending and is sent again; not at once, where it is the recording that fails.
      if (!this.#giveUp.aborted) this.#failure = { error: err };
    }
  }

  async #claimAgain(): Promise<void> {
    const claim = await claimWebhookOfAnyApp(this.#deps.db, this.#claim.id, this.#claim.fence);
    if (claim === undefined) this.#isLost = true;
    else this.#claim = claim;
    this.#claimedAt = performance.now();
  }

  /** Kept open for as long as they are the same. */
  async #openSecrets(): Promise<string[] | undefined> {
    const { log, webhooks } = this.#deps;
    const of = `${this.#claim.secret_jwe} ${this.#claim.previous_secret_jwe}`;
    if (this.#secrets?.of === of) return this.#secrets.open;
    try {
      this.#secrets = { of, open: await openSecrets(webhooks?.masterKeys, this.#claim) };
      return this.#secrets.open;
    } catch (err) {
      if (!(err instanceof SealedTextError)) throw err;
      log.error({ webhookId: this.#claim.id, reason: err.message }, 'the secret of a webhook cannot be opened');
      return undefined;
    }
  }

  /** Until a request has ended, something new may be there, or the worker stops. */
  async #nextChange(): Promise<void> {
    const changed = new AbortController();
    const looking = pause(lookMs, AbortSignal.any([this.#stop, changed.signal]));
    await Promise.race([looking, ...this.#underWay.values()]);
    changed.abort();
  }

  /** What is under way ends by its own time limit; where the worker stops, sooner. */
  async #drain(): Promise<void> {
    if (this.#isLost) this.#lost.abort();
    await Promise.allSettled(this.#underWay.values());
    this.#grace.release();
  }
}
