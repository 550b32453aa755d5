/**
 * How soon an operator and a small send get through while a large send is running: from the answer to `pause` until the last
 * request that reached a provider, and from the launch of a send to one device until its request.
 */
import { setTimeout as sleep } from 'node:timers/promises';
import { type ApiClient, createApiClient, type NotificationView } from '../local/api-client.ts';
import { demoDevices } from '../local/demo-audience.ts';
import { formatCount } from '../local/progress.ts';
import type { Stack } from '../local/stack.ts';
import { apnsDeviceToken } from '../simulator/device-tokens.ts';
import { median, tableRow } from './figures.ts';
import { startBenchStack } from './stack.ts';

export interface LatencyFigures {
  /** Medians. */
  pause_ms: number;
  overtake_ms: number;
}

/** How long the send runs before each pause. */
const runMs = 400;
/** How long after a pause the last request is looked for, … */
const silenceMs = 1_500;
/** … and how long any other event is waited for. */
const patienceMs = 30_000;
const pollMs = 5;

export async function benchLatency(
  devices: number,
  rounds: number,
  say: (line: string) => void,
): Promise<LatencyFigures> {
  const stack = await startBenchStack(1);
  try {
    const api = createApiClient(stack.apiUrl, stack.apiKey!);
    const audience = {
      name: 'bench',
      devices,
      providers: ['apns', 'fcm'] as const,
      deadPercent: 0,
      transientPercent: 0,
    };
    await api.importDevices(demoDevices(audience));
    await api.importDevices([
      { external_id: 'one', platform: 'ios', device_token: apnsDeviceToken(devices + 1), properties: {} },
    ]);
    say(`While a send to ${formatCount(devices)} devices runs: ${rounds} times each`);
    const launchLarge = async () => {
      const id = await launch(api, { condition: { property: 'demo', operator: 'eq', value: audience.name } });
      await untilMoving(stack, id);
      return id;
    };
    let large = await launchLarge();
    /** A send that is half done is replaced by a new one, so that it cannot end in the middle of a measurement. */
    const running = async () => {
      const { books } = await api.get<NotificationView>(`/v1/notifications/${large}`);
      if (books.is_planned && books.pending < devices / 2) {
        await end(api, large);
        large = await launchLarge();
      }
      return large;
    };
    const pauses: number[] = [];
    for (let round = 0; round < rounds; round++) pauses.push(await measurePause(stack, api, await running()));
    const overtakes: number[] = [];
    for (let round = 0; round < rounds; round++) overtakes.push(await measureOvertaking(stack, api, await running()));
    await end(api, large);
    say(tableRow('', 'median ms', 'longest ms'));
    say(tableRow('pause to last request', median(pauses), Math.max(...pauses)));
    say(tableRow('one device, to its request', median(overtakes), Math.max(...overtakes)));
    return { pause_ms: median(pauses), overtake_ms: median(overtakes) };
  } finally {
    await stack.stop();
  }
}

/** Milliseconds from the API's answer to the last request in the ledger; 0: none came after it. */
async function measurePause(stack: Stack, api: ApiClient, campaign: string): Promise<number> {
  const { control } = stack.simulator!;
  await sleep(runMs);
  await api.post(`/v1/notifications/${campaign}/pause`, {});
  const acknowledgedAt = Date.now();
  await sleep(silenceMs);
  const lastAt = (await control.lastReceivedAtMs(campaign))!;
  if (lastAt - acknowledgedAt > silenceMs - 200) throw new Error('requests still come after the pause');
  await api.post(`/v1/notifications/${campaign}/resume`, {});
  await untilMoving(stack, campaign);
  return Math.max(0, lastAt - acknowledgedAt);
}

/** Milliseconds from the call that launches a send to one device until its request is in the ledger. */
async function measureOvertaking(stack: Stack, api: ApiClient, campaign: string): Promise<number> {
  const { control } = stack.simulator!;
  const startedAt = Date.now();
  const id = await launch(api, { external_ids: ['one'] });
  const deadline = startedAt + patienceMs;
  for (;;) {
    const receivedAt = await control.lastReceivedAtMs(id);
    if (receivedAt !== null) {
      const { state, books } = await api.get<NotificationView>(`/v1/notifications/${campaign}`);
      if (state !== 'sending' || books.pending === 0) throw new Error('the large send was over before the small one');
      return receivedAt - startedAt;
    }
    if (Date.now() > deadline) throw new Error('the small send does not come through');
    await sleep(pollMs);
  }
}

async function launch(api: ApiClient, audience: object): Promise<string> {
  const message = { title: 'Hello', body: 'A message of ordinary size' };
  return (await api.post<NotificationView>('/v1/notifications', { message, audience, launch: true })).id;
}

/**
 * Also waits for the closed books: recording the devices that were not sent to is work that would slow down the next measurement.
 */
async function end(api: ApiClient, id: string): Promise<void> {
  const view = () => api.get<NotificationView>(`/v1/notifications/${id}`);
  if ((await view()).finished_at === null) await api.post(`/v1/notifications/${id}/cancel`, {});
  const deadline = Date.now() + patienceMs;
  while ((await view()).finished_at === null) {
    if (Date.now() > deadline) throw new Error('the cancelled send does not end');
    await sleep(pollMs);
  }
}

async function untilMoving(stack: Stack, campaign: string): Promise<void> {
  const { control } = stack.simulator!;
  const before = await control.lastReceivedAtMs(campaign);
  const deadline = Date.now() + patienceMs;
  while ((await control.lastReceivedAtMs(campaign)) === before) {
    if (Date.now() > deadline) throw new Error('the large send does not move');
    await sleep(pollMs);
  }
}
