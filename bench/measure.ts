/** What the senders of `bench/peers` share: the description that starts them, and the count of their CPU. */
import { readFileSync } from 'node:fs';

/** Written by `bench/engine.ts` as JSON; `bench/peers/apns2/main.go` reads the same. */
export interface SenderTask {
  /** Of the provider that the simulator stands in for, without a trailing slash. */
  url: string;
  ca_file: string;
  /** Apple's `.p8`. */
  key_file: string;
  key_id: string;
  team_id: string;
  /** A valid provider token, for clients that know nothing of APNs. */
  provider_token: string;
  topic: string;
  service_account_file: string;
  oauth_token_url: string;
  notification_id: string;
  /** The message from which Carillon makes the payload. */
  message: { title: string; body: string; sound: string; badge: number; deepLink: string; ttlSeconds: number };
  /** UNIX milliseconds. */
  expires_at_ms: number;
  /** The payload, the same for all: APNs's JSON text, or FCM's `message` without the registration token. */
  payload: string;
  /** `apns-*` headers but for `apns-id`. */
  headers: Record<string, string>;
  /** As many as warm-up and requests together, none twice. */
  device_tokens: string[];
  /** Requests sent before anything is counted. */
  warm_up: number;
  requests: number;
  in_flight: number;
}

/** One line of JSON on standard output. CPU is of the whole process, user and system, in seconds. */
export interface SenderReport {
  requests: number;
  accepted: number;
  seconds: number;
  cpu_seconds: number;
}

/** Sends to the device tokens from (included) to (excluded), and tells how many were accepted. */
export type SendRange = (from: number, to: number) => Promise<number>;

/** The file is the program's last argument. */
export function readTask(): SenderTask {
  return JSON.parse(readFileSync(process.argv.at(-1)!, 'utf8'));
}

/** @throws when anything was not accepted: a sender that fails costs less and must not be measured. */
export async function runSender(task: SenderTask, send: SendRange): Promise<void> {
  const { warm_up: warmUp, requests } = task;
  await sendAll(send, 0, 1);
  await sendAll(send, 1, warmUp);
  const startedAt = performance.now();
  const before = process.cpuUsage();
  const accepted = await sendAll(send, warmUp, warmUp + requests);
  const { user, system } = process.cpuUsage(before);
  const seconds = (performance.now() - startedAt) / 1000;
  const report: SenderReport = { requests, accepted, seconds, cpu_seconds: (user + system) / 1e6 };
  console.log(JSON.stringify(report));
}

async function sendAll(send: SendRange, from: number, to: number): Promise<number> {
  const accepted = await send(from, to);
  if (accepted !== to - from) throw new Error(`${to - from} requests were sent and ${accepted} accepted`);
  return accepted;
}

/** A range sent one by one, `inFlight` at a time. @throws with the first answer that is not an acceptance. */
export function inParallel(inFlight: number, sendOne: (n: number) => Promise<unknown>): SendRange {
  return async (from, to) => {
    let next = from;
    let accepted = 0;
    const sendOnAndOn = async () => {
      while (next < to) {
        const refusal = await sendOne(next++);
        if (refusal !== undefined) throw new Error(`not accepted: ${JSON.stringify(refusal)}`);
        accepted++;
      }
    };
    await Promise.all(Array.from({ length: Math.min(inFlight, to - from) }, sendOnAndOn));
    return accepted;
  };
}
