import { retryDatabase } from '../../db/retry-database.ts';
import { keepEvidence, reviveSuspects } from '../../db/token-evidence.ts';
import { weighTokens } from '../../domain/token-evidence.ts';
import type { Suspect } from './breaker.ts';
import type { Run } from './run.ts';
import type { RunBooks } from './run-books.ts';
import type { RunEnd } from './run-end.ts';
import type { Part, RunParts } from './run-parts.ts';
import { suspicionOf } from './suspicion.ts';

/** Acceptances are told to the evidence at least so often, so that others need not wait for the end of the batch. */
const evidenceMs = 10_000;
/** How long a suspect of a lane waits for what others get. */
const soonMs = 1_000;

/** Judges devices whose answer may speak of the configuration: they are at fault themselves, or the send is to be halted. */
export class TokenJudgement {
  readonly #run: Run;
  readonly #end: RunEnd;
  readonly #parts: RunParts;
  readonly #books: RunBooks;
  /** Judgements under way, one after the other. */
  #judging: Promise<void> = Promise.resolve();
  #evidenceKeptAt = performance.now();
  readonly #soon = new Map<Part, NodeJS.Timeout>();

  constructor(given: { run: Run; end: RunEnd; parts: RunParts; books: RunBooks }) {
    this.#run = given.run;
    this.#end = given.end;
    this.#parts = given.parts;
    this.#books = given.books;
  }

  /** Sends to a few devices and batches of other workers judge by it too. */
  tellAcceptances(): void {
    if (performance.now() - this.#evidenceKeptAt < evidenceMs) return;
    this.#evidenceKeptAt = performance.now();
    for (const part of this.#parts.all) {
      if (part.breaker.acceptedUnkept > 0) this.#judgeLater(() => this.#keepEvidence(part, []));
    }
  }

  #keepEvidence(part: Part, suspects: Suspect[]) {
    const { db, appId, giveUp } = this.#run;
    const accepted = part.breaker.acceptedUnkept;
    part.breaker.acceptedUnkept = 0;
    const suspectIds = suspects.map(({ device }) => device.deviceId);
    return retryDatabase(() => keepEvidence(db, appId, part.configuration, { accepted, suspectIds }), giveUp);
  }

  weighLater(part: Part): void {
    this.#judgeLater(() => this.#weigh(part));
  }

  /** Of a lane, which has no end: somebody waits for the outcome. Further answers of the next moment count. */
  weighSoon(part: Part): void {
    if (this.#soon.has(part)) return;
    const timer = setTimeout(() => {
      this.#soon.delete(part);
      this.#judgeLater(() => this.#weigh(part, 'finally'));
    }, soonMs);
    this.#soon.set(part, timer);
  }

  /** In mid-run: suspects that cannot be judged yet are held on; not `finally`. */
  async #weigh(part: Part, how?: 'finally'): Promise<void> {
    const suspects = part.breaker.suspects.splice(0);
    if (suspects.length === 0) return;
    const judgement = weighTokens(await this.#keepEvidence(part, suspects));
    const mayEnd = this.#end.why?.kind !== 'halt';
    if (judgement === 'dead' && mayEnd) this.#believe(suspects);
    else if (judgement !== 'fault' && how === 'finally' && mayEnd) {
      for (const { device, verdict } of suspects) this.#books.reject(device, verdict);
    } else part.breaker.suspects.unshift(...suspects);
    if (judgement === 'fault') await this.haltForTokens(part);
  }

  /** At the end of the run, when nothing more is under way. */
  async judgeAll(): Promise<void> {
    for (const timer of this.#soon.values()) clearTimeout(timer);
    this.#soon.clear();
    await this.#judging;
    const { pending } = this.#run;
    const isLastRun =
      this.#end.why === undefined && !pending.hasUntried && pending.deferred + this.#books.devicesSetAside === 0;
    for (const part of this.#parts.all) {
      const { breaker } = part;
      if (breaker.acceptedUnkept + breaker.suspects.length > 0) {
        const judgement = weighTokens(await this.#keepEvidence(part, breaker.suspects));
        if (this.#end.why?.kind !== 'halt' && this.#end.why?.kind !== 'askElsewhere') {
          if (judgement === 'dead') this.#believe(breaker.suspects.splice(0));
          else if (judgement === 'fault' && (this.#end.why === undefined || this.#end.why.kind === 'wait')) {
            await this.haltForTokens(part);
          }
        }
      }
      // Believed or not, the provider will not take the message for them.
      for (const { device, verdict } of [...breaker.suspects.splice(0), ...breaker.payloadFaults.splice(0)]) {
        if (isLastRun && this.#end.why === undefined) this.#books.reject(device, verdict);
        else this.#books.putOff(device, this.#waitOfOthers(), verdict);
      }
    }
  }

  #believe(suspects: Suspect[]): void {
    for (const { device, verdict } of suspects) {
      if (verdict.isOtherTopic) this.#books.reject(device, verdict);
      else this.#books.retire(device, verdict);
    }
  }

  /** The configuration must be wrong: the suspects are not at fault, nor were the devices that were retired for the same today. */
  async haltForTokens(part: Part): Promise<void> {
    const { db, appId, giveUp } = this.#run;
    const suspects = part.breaker.suspects.splice(0);
    const { accepted, suspicious } = await this.#keepEvidence(part, suspects);
    const revived = await retryDatabase(() => reviveSuspects(db, appId, part.configuration), giveUp);
    const { reason, fault, check } = suspicionOf(suspects.map(({ verdict }) => verdict));
    const answers = `${Math.round(suspicious)} of the last ${Math.round(accepted + suspicious)} answers were ${reason}`;
    const live =
      revived === 0 ? 'No device was retired.' : `${revived} devices that were retired for it are live again.`;
    const detail = `${answers}: ${check} ${live}`;
    const halt = { reason: fault, detail };
    if (this.#parts.canGoOnWithout(part)) this.#parts.setAside(part, { halt, reason, httpStatus: 400 });
    else this.#end.haltFor(halt);
    for (const { device, verdict } of suspects) this.#books.putOff(device, 0, verdict);
  }

  /** Milliseconds until the devices that wait anyway are tried again. */
  #waitOfOthers(): number {
    if (this.#end.why?.kind === 'wait') return this.#end.why.waitMs;
    return this.#end.why === undefined ? (this.#run.pending.msUntilNextDeferred() ?? 0) : 0;
  }

  #judgeLater(judge: () => Promise<unknown>): void {
    this.#judging = this.#judging.then(judge).then(
      () => {},
      (error: unknown) => this.#end.fail(error),
    );
  }
}
