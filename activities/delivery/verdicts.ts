import { exhausted } from '../../domain/exhausted.ts';
import type {
  LaterVerdict,
  MisconfiguredVerdict,
  RejectedVerdict,
  UnansweredVerdict,
  UnsentVerdict,
  Verdict,
} from '../../providers/provider.ts';
import type { BreakerCall } from './breaker.ts';
import { decideFault } from './configuration-fault.ts';
import { decide } from './decide.ts';
import type { HostTroubles } from './host-troubles.ts';
import type { ProviderHealth, ProviderSign } from './overload-watch.ts';
import type { PendingDevice } from './pending.ts';
import type { Run } from './run.ts';
import type { RunBooks } from './run-books.ts';
import type { RunEnd } from './run-end.ts';
import type { Part, RunParts } from './run-parts.ts';
import type { TokenJudgement } from './token-judgement.ts';

/** More suspects are never held: a crash would leave them in doubt. */
const maxSuspects = 200;

/** What every verdict leads to: for its device, for the others of its configuration and host, and for the run. */
export class Verdicts {
  readonly #run: Run;
  readonly #end: RunEnd;
  readonly #parts: RunParts;
  readonly #books: RunBooks;
  readonly #troubles: HostTroubles;
  readonly #judgement: TokenJudgement;
  /** By this run. */
  #accepted = 0;

  constructor(given: {
    run: Run;
    end: RunEnd;
    parts: RunParts;
    books: RunBooks;
    troubles: HostTroubles;
    judgement: TokenJudgement;
  }) {
    this.#run = given.run;
    this.#end = given.end;
    this.#parts = given.parts;
    this.#books = given.books;
    this.#troubles = given.troubles;
    this.#judgement = given.judgement;
  }

  apply(device: PendingDevice, part: Part, verdict: Verdict): void {
    const { breaker, health } = part;
    switch (verdict.kind) {
      case 'accepted':
        health.note(device.requestNumber, 'well');
        this.#accepted += 1;
        this.#books.record(device, {
          kind: 'record',
          outcome: 'accepted',
          reason: null,
          httpStatus: verdict.httpStatus,
          attempts: device.attempts + 1,
          excused: device.excused,
          doubts: device.doubts,
          providerMessageId: verdict.providerMessageId,
        });
        this.#noteProof(part, breaker.noteAccepted());
        return;
      case 'unregistered':
        health.note(device.requestNumber, 'well');
        if (verdict.suspicion) {
          this.#heed(part, breaker.noteSuspicious({ device, verdict }));
          if (this.#run.pending.isEndless) this.#judgement.weighSoon(part);
          return;
        }
        this.#books.retire(device, verdict);
        this.#noteProof(part, breaker.noteProof());
        return;
      case 'rejected':
        health.note(device.requestNumber, 'well');
        this.#applyRejection(device, part, verdict);
        return;
      case 'later':
      case 'unanswered':
        this.#applyRefusal(device, part, verdict);
        return;
      case 'unsent':
        this.#applyUnsent(device, part, verdict);
        return;
      case 'misconfigured':
        health.note(device.requestNumber, 'well');
        this.#applyFault(device, part, verdict);
        return;
      default:
        exhausted(verdict);
    }
  }

  #applyRejection(device: PendingDevice, part: Part, verdict: RejectedVerdict): void {
    const { breaker } = part;
    const isOfPart = () => verdict.isOnePlatform === true && this.#parts.canGoOnWithout(part);
    // In a lane each device has a message of its own.
    const isOfAll = verdict.isPayloadFault && !this.#run.pending.isEndless;
    if (isOfAll && !breaker.isProven && !isOfPart()) {
      if (breaker.notePayloadFault({ device, verdict })) {
        const text = verdict.detail ? `${verdict.reason}, ${verdict.detail}` : verdict.reason;
        const detail = `The first ${breaker.payloadFaults.length} devices refused the message itself: ${text}.`;
        this.#end.haltFor({ reason: 'payload', detail });
      }
      return;
    }
    this.#books.carryOut(device, decide(verdict, device, this.#books.rules(device.content)));
    this.#heed(part, breaker.noteAnswer());
  }

  #applyRefusal(device: PendingDevice, part: Part, verdict: LaterVerdict | UnansweredVerdict): void {
    const { breaker, health } = part;
    const decision = decide(verdict, device, this.#books.rules(device.content, this.#wereOthersTaken(device, health)));
    device.refusedAt = this.#run.pending.clock.instantIn(0);
    this.#books.carryOut(device, decision);
    if (health.note(device.requestNumber, signOf(verdict))) this.#troubles.holdBackAll(part, decision);
    if (verdict.kind === 'later') this.#heed(part, breaker.noteAnswer());
  }

  /** Since it was last refused. */
  #wereOthersTaken({ refusedAt }: PendingDevice, { msSinceWell }: ProviderHealth): boolean {
    return refusedAt !== null && this.#run.pending.clock.nowMs() - msSinceWell > refusedAt.getTime();
  }

  /** No connection to be had: the device waits, and all others of its host. No attempt. */
  #applyUnsent(device: PendingDevice, { host }: Part, verdict: UnsentVerdict): void {
    const decision = decide(verdict, device, this.#books.rules(device.content));
    if (decision.kind === 'record') {
      this.#books.record(device, decision);
      return;
    }
    this.#books.postpone(device, this.#troubles.noteUnsent(host, verdict), verdict);
  }

  #applyFault(device: PendingDevice, part: Part, verdict: MisconfiguredVerdict): void {
    const asideMs = this.#parts.msAside(part);
    if (asideMs !== undefined) {
      this.#books.postpone(device, asideMs, part.fault!);
      return;
    }
    const { acceptedBefore } = this.#run;
    const decision = decideFault(verdict, device, {
      isStray: part.breaker.noteFault(device.deviceId, acceptedBefore > 0),
      accepted: acceptedBefore + this.#accepted,
      isProven: part.breaker.isProven,
      canGoOnWithout: this.#parts.canGoOnWithout(part),
      rules: this.#books.rules(device.content),
    });
    const halt = { reason: verdict.fault, detail: verdict.detail };
    switch (decision.kind) {
      case 'record':
      case 'defer':
        this.#books.carryOut(device, decision);
        return;
      case 'setPartAside':
        this.#parts.setAside(part, { halt, reason: verdict.reason, httpStatus: verdict.httpStatus });
        this.#books.postpone(device, this.#parts.msAside(part)!, part.fault!);
        return;
      case 'halt':
        this.#end.haltFor(halt);
        this.#books.putOff(device, 0, verdict);
        return;
      default:
        exhausted(decision);
    }
  }

  /** A device was taken: all may be sent to at full speed, and those that refused the message did so for themselves. */
  #noteProof(part: Part, call: BreakerCall): void {
    part.host.isProven = true;
    const { payloadFaults } = part.breaker;
    if (payloadFaults.length > 0) {
      for (const { device, verdict } of payloadFaults.splice(0)) {
        this.#books.carryOut(device, decide(verdict, device, this.#books.rules(device.content)));
      }
    }
    this.#heed(part, call);
  }

  #heed(part: Part, call: BreakerCall): void {
    switch (call) {
      case 'nothing':
        return;
      case 'askElsewhere':
        if (this.#run.pending.hasUntried) {
          const { sizeOfElsewhere, suspects } = part.breaker;
          this.#end.stopFor({ kind: 'askElsewhere', devices: sizeOfElsewhere, suspects: suspects.length });
        } else if (part.breaker.suspects.length >= maxSuspects) this.#judgement.weighLater(part);
        return;
      case 'weigh':
        this.#judgement.weighLater(part);
        return;
      default:
        exhausted(call);
    }
  }
}

function signOf(verdict: LaterVerdict | UnansweredVerdict): ProviderSign {
  if (verdict.kind === 'unanswered') return 'failure';
  return verdict.scope === 'device' ? 'well' : 'refusal';
}
