/**
 * Small sends in a wrong APNs environment, paused and resumed, their workers killed and restarted: whatever happens, no device
 * may be retired for a fault of ours, and the sends halt. Then the environment is set right, and every waiting device gets the
 * message.
 */
import { setTimeout as sleep } from 'node:timers/promises';
import { connect } from '../../db/connect.ts';
import { createApiClient, type NotificationView } from '../../local/api-client.ts';
import type { Stack } from '../../local/stack.ts';
import { apnsDeviceToken } from '../../simulator/device-tokens.ts';
import { createRandom } from '../../simulator/random.ts';
import { createOperator, launchOnce, type Operator } from './operator.ts';
import { came, patiently } from './patience.ts';

export interface WrongEnvironmentReport {
  seed: number;
  sends: number;
  devices: number;
  kills: number;
  restarts: number;
  pauses: number;
  halted: number;
  retired: number;
  /** Each a broken promise, in plain words. */
  problems: string[];
}

const settleMs = 60_000;

interface SmallSend {
  id: string;
  externalIds: string[];
  operator: Operator;
}

export async function runWrongEnvironment(
  stack: Stack,
  seed: number,
  runNumber: number,
  count = 60,
): Promise<WrongEnvironmentReport> {
  const random = createRandom(seed ^ 0x5eed);
  const upTo = (most: number) => 1 + Math.floor(random() * most);
  const api = createApiClient(stack.apiUrl, stack.apiKey!);
  const { db, pool } = connect(stack.databaseUrl, { maxConnections: 2, applicationName: 'carillon-chaos' });
  const name = `wrong-${runNumber}-${seed}`;
  const report = { seed, sends: 0, devices: count, kills: 0, restarts: 0, pauses: 0, halted: 0, retired: 0 };
  const problems: string[] = [];
  const register = (environment: 'production' | 'sandbox', from = 0) =>
    patiently(() =>
      api.importDevices(
        Array.from({ length: count - from }, (_, n) => ({
          external_id: `${name}-${from + n}`,
          platform: 'ios',
          device_token: apnsDeviceToken(runNumber * 10_000_000 + 5_000_000 + from + n, 'accept', {
            environment: 'production',
          }),
          apns_environment: environment,
        })),
      ),
    );
  const retired = async () => {
    const { rows } = await pool.query(
      `select count(*)::integer as devices from devices where external_id like $1 || '-%' and retired_at is not null`,
      [name],
    );
    return rows[0].devices as number;
  };
  try {
    // Earlier runs have evidence of their own.
    await pool.query('delete from token_evidence');
    await pool.query('delete from token_suspects');
    await register('sandbox');

    const sends: SmallSend[] = [];
    for (let first = 0; first < count; ) {
      const size = Math.min(upTo(6), count - first);
      const externalIds = Array.from({ length: size }, (_, n) => `${name}-${first + n}`);
      first += size;
      const body = {
        title: `${name}-send-${sends.length + 1}`,
        message: { title: 'Hold fast' },
        audience: { external_ids: externalIds },
        // Slow enough that the disturbances fall into the middle of the send.
        rate_per_second: random() < 0.5 ? upTo(5) : null,
        launch: true,
      };
      const id = await launchOnce(stack.apiUrl, stack.apiKey!, body);
      sends.push({ id, externalIds, operator: createOperator(stack.apiUrl, stack.apiKey!, id) });
      await disturb(sends.at(-1)!);
    }
    report.sends = sends.length;
    for (const send of sends) await send.operator.ask('resume');
    for (const { id, operator } of sends) {
      const isStill = () => came(async () => isAtRest(await operator.look()), settleMs);
      if (!(await isStill())) problems.push(`${id} neither ends nor halts`);
      const view = await operator.look();
      if (view?.state === 'halted') report.halted += 1;
      if (view && !view.books.balanced) problems.push(`the books of ${id} do not balance`);
      const wrong = Object.entries(view?.books.outcomes ?? {}).filter(([name, n]) => n > 0 && name !== 'rejected');
      if (wrong.length > 0) problems.push(`${id} has outcomes that nobody can have: ${JSON.stringify(wrong)}`);
    }
    report.retired = await retired();
    if (report.retired > 0) problems.push(`${report.retired} devices are retired for a fault that is ours`);
    if (report.halted === 0) problems.push('no send halted');

    await register('production');
    for (const { operator } of sends) await operator.ask('resume');
    for (const { id, operator } of sends) {
      if (!(await came(async () => (await operator.look())?.state === 'completed', settleMs))) {
        problems.push(`${id} does not complete after the fix: ${JSON.stringify(await operator.look())}`);
      }
    }
    if ((await retired()) > 0) problems.push('devices are retired after the fix');
    return { ...report, problems };
  } finally {
    await db.destroy();
  }

  async function disturb({ operator }: SmallSend): Promise<void> {
    await sleep(Math.floor(random() * 400));
    const worker = stack.processes.workers[random() < 0.5 ? 0 : 1]!;
    const drawn = random();
    if (drawn < 0.35) {
      report.pauses += 1;
      await operator.ask('pause');
      if (random() < 0.5) await operator.ask('resume');
    } else if (drawn < 0.5) {
      report.kills += 1;
      await worker.kill();
      await worker.start();
    } else if (drawn < 0.6) {
      report.restarts += 1;
      await worker.restart();
    } else if (drawn < 0.65) {
      report.restarts += 1;
      await stack.processes.postgres!.restart();
    }
  }
}

function isAtRest(view: NotificationView | undefined): boolean {
  return view?.state === 'completed' || view?.state === 'halted';
}
