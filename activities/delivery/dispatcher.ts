import { type DeviceAddress, PayloadError, type PreparedMessage, type Verdict } from '../../providers/provider.ts';
import { endByExpiry, endByPayload, endWithoutRequest } from './end-without-request.ts';
import type { HostTroubles } from './host-troubles.ts';
import type { PendingDevice } from './pending.ts';
import type { Run } from './run.ts';
import type { RunBooks } from './run-books.ts';
import type { RunEnd } from './run-end.ts';
import type { RunHosts } from './run-hosts.ts';
import type { Part, RunParts } from './run-parts.ts';
import type { Slot } from './slot.ts';
import type { Verdicts } from './verdicts.ts';
import type { WindowSpans } from './window-spans.ts';

/** Hands reserved devices to the provider, as many at once as their host takes, and every answer to the verdicts. */
export class Dispatcher {
  readonly #run: Run;
  readonly #end: RunEnd;
  readonly #slot: Slot;
  readonly #hosts: RunHosts;
  readonly #parts: RunParts;
  readonly #books: RunBooks;
  readonly #troubles: HostTroubles;
  readonly #verdicts: Verdicts;
  readonly #spans: WindowSpans | undefined;
  #inFlight = 0;
  #wake: (() => void) | undefined;
  #onDrained: (() => void) | undefined;

  constructor(given: {
    run: Run;
    end: RunEnd;
    slot: Slot;
    hosts: RunHosts;
    parts: RunParts;
    books: RunBooks;
    troubles: HostTroubles;
    verdicts: Verdicts;
    spans: WindowSpans | undefined;
  }) {
    this.#run = given.run;
    this.#end = given.end;
    this.#slot = given.slot;
    this.#hosts = given.hosts;
    this.#parts = given.parts;
    this.#books = given.books;
    this.#troubles = given.troubles;
    this.#verdicts = given.verdicts;
    this.#spans = given.spans;
  }

  get inFlight(): number {
    return this.#inFlight;
  }

  /** When it resolves, every device has had its turn. Those that had none before the run's end are noted as undispatched. */
  async dispatch(devices: PendingDevice[]): Promise<void> {
    for (let i = 0; i < devices.length; i++) {
      const device = devices[i]!;
      const host = this.#hosts.of(device);
      let mayGo = host === undefined || this.#hosts.hasRoom(host);
      while (this.#end.why === undefined && !mayGo) {
        if (this.#hosts.letOthersPass(host!, devices, i)) break;
        await new Promise<void>((resolve) => {
          this.#wake = resolve;
        });
        mayGo = this.#hosts.hasRoom(host!);
      }
      if (this.#end.why !== undefined) {
        this.#books.noteUndispatched(devices, i);
        return;
      }
      this.#run.pending.noteTried(device);
      if (mayGo) this.#send(device);
    }
  }

  /** What `dispatch` waits for may have come. */
  wakeUp(): void {
    this.#wake?.();
    this.#wake = undefined;
  }

  /** Resolves when nothing is under way, or answers are no longer waited for. */
  async drain(): Promise<void> {
    const { giveUp } = this.#run;
    if (this.#inFlight === 0 || giveUp.aborted) return;
    const drained = Promise.withResolvers<void>();
    const onGiveUp = () => drained.resolve();
    this.#onDrained = drained.resolve;
    giveUp.addEventListener('abort', onGiveUp);
    await drained.promise;
    giveUp.removeEventListener('abort', onGiveUp);
    this.#onDrained = undefined;
  }

  #send(device: PendingDevice): void {
    const { config, pending } = this.#run;
    const { prepared, expiresAt, inDoubtPolicy } = device.content;
    // Sent to once more, the phone may show it twice.
    if (device.reached === 'perhaps') device.doubts = Math.max(1, device.doubts);
    const end = device.endsAs ?? endWithoutRequest(device, inDoubtPolicy, config.maxDoubts);
    if (end !== undefined) {
      this.#books.recordWithoutRequest(device, end);
      return;
    }
    if (prepared instanceof PayloadError) {
      this.#books.recordWithoutRequest(device, endByPayload(prepared));
      return;
    }
    const address = device.address!;
    const part = this.#parts.of(address, prepared);
    const { host } = part;
    const waitMs = this.#parts.msAside(part);
    if (waitMs !== undefined) this.#books.postpone(device, waitMs, part.fault!);
    else if (this.#hosts.isBlocked(host)) this.#books.postpone(device, this.#hosts.msUntilFree(host), host);
    // A window that waits for room can outlast the time to live: the next reservation ends the run, this device ends here.
    else if (expiresAt !== null && pending.clock.nowMs() >= expiresAt.getTime()) {
      this.#books.recordWithoutRequest(device, endByExpiry(device.doubts));
    } else this.#request(device, prepared, part);
  }

  #request(device: PendingDevice, prepared: PreparedMessage, part: Part): void {
    const { provider, progress } = this.#run;
    const { deviceToken, apnsEnvironment, platform } = device.address!;
    const target: DeviceAddress = { deviceId: device.deviceId, deviceToken, apnsEnvironment, platform };
    part.host.inFlight += 1;
    this.#inFlight += 1;
    progress.dispatched += 1;
    device.requestNumber = part.health.begin();
    provider.send(prepared, target).then(
      (verdict) => this.#noteAnswer(device, part, verdict),
      // `send` always resolves; should it break its word, the device is in doubt, and the batch goes on.
      (error: unknown) =>
        this.#noteAnswer(device, part, { kind: 'unanswered', httpStatus: null, reason: String(error) }),
    );
  }

  #noteAnswer(device: PendingDevice, part: Part, verdict: Verdict): void {
    const { host } = part;
    host.inFlight -= 1;
    this.#inFlight -= 1;
    this.#run.progress.answered += 1;
    this.#spans?.endAnswered();
    this.#slot.noteAnswer();
    if (verdict.kind !== 'unsent') this.#troubles.noteReached(host, verdict.kind !== 'unanswered');
    this.#verdicts.apply(device, part, verdict);
    while (this.#end.why === undefined && host.waiting.length > 0 && this.#hosts.hasRoom(host)) {
      this.#send(host.waiting.shift()!);
    }
    if (this.#inFlight === 0) this.#onDrained?.();
    if (this.#wake !== undefined && (this.#end.why !== undefined || this.#hosts.hasRoom(host))) this.wakeUp();
  }
}
