/** What the metrics of a device cost its worker, by itself: within a whole send it is lost in the noise. */
import { ProviderTraffic } from '../domain/provider-traffic.ts';
import { countRecorded, countWait, countWindow } from '../telemetry/delivery-metrics.ts';

const devices = 2_000_000;
/** As a busy send has them: two kinds of outcomes in each chunk. */
const chunk = 500;
const window = 500;

/** Microseconds for each device. */
export function measureCounting(): number {
  // The first pass compiles; it must not count.
  countAll();
  const startedAt = performance.now();
  countAll();
  return ((performance.now() - startedAt) * 1_000) / devices;
}

function countAll(): void {
  const traffic = new ProviderTraffic();
  const whose = { app: 'bench', provider: 'apns' } as const;
  const accepted = { outcome: 'accepted', httpStatus: 200, reason: null, attempts: 1, inDoubt: false } as const;
  const dead = {
    outcome: 'unregistered',
    httpStatus: 410,
    reason: 'Unregistered',
    attempts: 1,
    inDoubt: false,
  } as const;
  for (let n = 0; n < devices; n++) {
    traffic.now.requests++;
    traffic.now.requests--;
    traffic.noteAnswer(n % 100 === 0 ? 410 : 200, n % 200);
    if (n % chunk === 0) {
      countRecorded(whose, accepted, chunk - 5);
      countRecorded(whose, dead, 5);
    }
    if (n % window === 0) {
      countWait('apns', 'reservation', 1);
      countWindow('apns', window);
    }
  }
}
