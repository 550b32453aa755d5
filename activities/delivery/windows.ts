import { retryDatabase } from '../../db/retry-database.ts';
import type { Reservation } from '../../db/windows.ts';
import { exhausted } from '../../domain/exhausted.ts';
import { countWait, countWindow, type WaitCause } from '../../telemetry/delivery-metrics.ts';
import { maxWaitHereMs } from './batch-slot.ts';
import type { HostTroubles } from './host-troubles.ts';
import type { PendingDevice } from './pending.ts';
import type { Recorder } from './recorder.ts';
import type { Run } from './run.ts';
import { type RunEnd, rateLimit } from './run-end.ts';
import type { RunHosts } from './run-hosts.ts';
import type { Slot } from './slot.ts';
import type { TokenJudgement } from './token-judgement.ts';
import { nextWindowSize, smallestWindow } from './window-size.ts';

/** The windows of one run: each is reserved in the books before any of its devices is sent to. */
export class Windows {
  readonly #run: Run;
  readonly #end: RunEnd;
  readonly #slot: Slot;
  readonly #hosts: RunHosts;
  readonly #recorder: Recorder;
  readonly #troubles: HostTroubles;
  readonly #judgement: TokenJudgement;
  #size = smallestWindow;

  constructor(given: {
    run: Run;
    end: RunEnd;
    slot: Slot;
    hosts: RunHosts;
    recorder: Recorder;
    troubles: HostTroubles;
    judgement: TokenJudgement;
  }) {
    this.#run = given.run;
    this.#end = given.end;
    this.#slot = given.slot;
    this.#hosts = given.hosts;
    this.#recorder = given.recorder;
    this.#troubles = given.troubles;
    this.#judgement = given.judgement;
  }

  /** The next window, reserved; undefined: no device is due, or the run is to end. */
  async next(): Promise<PendingDevice[] | undefined> {
    const { config, pending, provider, giveUp } = this.#run;
    while (this.#end.why === undefined) {
      if (await this.#troubles.hasBecomeAlone()) return undefined;
      // So a crash leaves at most three windows in doubt (outcomes not written, the one being sent, the next), the requests
      // under way, and the answers that the breaker holds.
      if (!this.#recorder.hasRoom(config.windowSize)) {
        await this.#timed('room', this.#recorder.room(config.windowSize));
      }
      this.#judgement.tellAcceptances();
      const devices = await retryDatabase(() => pending.peek(this.#size), giveUp);
      if (devices.length === 0) return undefined;
      // A deferral must be in the books before its device is sent to again, or a crash would not know of the attempt.
      if (devices.some(({ wasDeferred }) => wasDeferred)) await this.#recorder.flush();
      if (this.#end.why !== undefined) return undefined;
      const reservation = await this.#timed('reservation', this.#reserve(devices));
      if (reservation.answer !== 'go') {
        await this.#holdBack(reservation);
        continue;
      }
      pending.take(reservation.granted);
      countWindow(provider.name, reservation.granted);
      for (const trouble of reservation.hosts) this.#troubles.learn(trouble);
      // If so the run is over, and the window is given back with the rest.
      await this.#troubles.hasBecomeAlone();
      return devices.slice(0, reservation.granted);
    }
    return undefined;
  }

  /** The window before took so long. */
  adapt(sent: { devices: number; elapsedMs: number }): void {
    this.#size = nextWindowSize(this.#size, sent, this.#run.config.windowSize);
  }

  async #timed<T>(cause: WaitCause, wait: Promise<T>): Promise<T> {
    const startedAt = performance.now();
    try {
      return await wait;
    } finally {
      countWait(this.#run.provider.name, cause, performance.now() - startedAt);
    }
  }

  #reserve(devices: PendingDevice[]): Promise<Reservation> {
    const { books, provider, giveUp } = this.#run;
    const at = { hosts: this.#hosts.namesOf(devices), credential: provider.credential };
    return retryDatabase(() => books.reserve(devices, at), giveUp);
  }

  async #holdBack(reservation: Exclude<Reservation, { answer: 'go' }>): Promise<void> {
    switch (reservation.answer) {
      case 'wait':
        if (this.#slot.mayWaitForQuota(reservation.waitMs)) {
          await this.#timed('rate_limit', this.#slot.waitHere(reservation.waitMs, rateLimit));
        } else {
          const waitMs = Math.max(reservation.waitMs, maxWaitHereMs);
          this.#end.stopFor({ kind: 'wait', waitMs, reason: rateLimit });
        }
        return;
      case 'changed':
        this.#run.pending.readAgain();
        return;
      case 'expired':
        this.#end.stopFor({ kind: 'expired' });
        return;
      case 'fenced':
      case 'paused':
      case 'halted':
      case 'cancelled':
        this.#end.stopFor({ kind: 'stopped', reason: reservation.answer });
        return;
      default:
        exhausted(reservation);
    }
  }
}
