/**
 * `deliverBatch` alone, on a prepared database and without Temporal, against the same engine sending the same messages without
 * books. The sender is a process of its own (`deliver-process.ts`), whose CPU is measured.
 */
import { execFile } from 'node:child_process';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { createApiClient } from '../local/api-client.ts';
import { demoDevices } from '../local/demo-audience.ts';
import { formatCount } from '../local/progress.ts';
import { workerArguments } from '../local/stack-parts.ts';
import type { DeliverReport, DeliverTask } from './deliver-process.ts';
import { round, tableRow } from './figures.ts';
import { startBenchStack } from './stack.ts';

/**
 * Microseconds of the sender's CPU for each device. `send_us` is what a batch costs more than one that sends nothing; `record_us`
 * (windows and outcomes) is what the latter costs beyond reading and building. `count_us`: of
 * all that, the metrics.
 */
export interface DeliverFigures {
  cpu_us: number;
  read_us: number;
  build_us: number;
  send_us: number;
  record_us: number;
  count_us: number;
}

const timeoutMs = 600_000;

/** `tax`: sends a second with books over sends a second without, where the provider answers at once. */
export async function benchDeliver(
  quick: boolean,
  say: (line: string) => void,
): Promise<{ deliver: DeliverFigures; tax: number }> {
  const [rounds, devices] = quick ? [2, 40_000] : [5, 100_000];
  const stack = await startBenchStack(0);
  try {
    const name = 'bench';
    const audience = { name, devices, providers: ['apns'] as const, deadPercent: 0, transientPercent: 0 };
    const { imported } = await createApiClient(stack.apiUrl, stack.apiKey!).importDevices(demoDevices(audience));
    if (imported !== devices) throw new Error(`${imported} of ${devices} devices were imported`);
    say(`deliverBatch alone: ${rounds} rounds in turn, ${formatCount(devices)} devices each`);
    const report = await runProcess(stack.env, { audience: name, rounds, controlUrl: stack.simulator!.controlUrl });
    printTable(report, say);
    const { atOnce, parts } = report;
    return {
      deliver: {
        cpu_us: round(atOnce.tracked.cpuUs, 1),
        read_us: round(parts.readUs, 2),
        build_us: round(parts.buildUs, 4),
        send_us: round(sendUs(report), 1),
        record_us: round(recordUs(report), 1),
        count_us: round(report.countUs, 3),
      },
      tax: round(atOnce.tracked.perSecond / atOnce.bare.perSecond, 2),
    };
  } finally {
    await stack.stop();
  }
}

async function runProcess(env: NodeJS.ProcessEnv, task: DeliverTask): Promise<DeliverReport> {
  const flags = workerArguments.filter((argument) => argument.startsWith('-'));
  const args = [...flags, join(import.meta.dirname, 'deliver-process.ts'), JSON.stringify(task)];
  const { stdout } = await promisify(execFile)(process.execPath, args, { env, timeout: timeoutMs });
  return JSON.parse(stdout.trimEnd().split('\n').at(-1)!);
}

function sendUs({ atOnce, parts }: DeliverReport): number {
  return atOnce.tracked.cpuUs - parts.withoutSendingUs;
}

function recordUs({ parts }: DeliverReport): number {
  return parts.withoutSendingUs - parts.readUs - parts.buildUs;
}

function printTable(report: DeliverReport, say: (line: string) => void): void {
  const { atOnce, likeAProvider, parts } = report;
  say(tableRow('', 'CPU µs/device'));
  say(tableRow('whole', atOnce.tracked.cpuUs.toFixed(1)));
  say(tableRow('  read', parts.readUs.toFixed(2)));
  say(tableRow('  build', parts.buildUs.toFixed(4)));
  say(tableRow('  send', sendUs(report).toFixed(1)));
  say(tableRow('  record', recordUs(report).toFixed(1)));
  say(tableRow('  of that, metrics', report.countUs.toFixed(3)));
  say(tableRow('without books', atOnce.bare.cpuUs.toFixed(1)));
  say(tableRow('', 'with books/s', 'without/s', 'ratio'));
  for (const [title, { tracked, bare }] of [
    ['provider answers at once', atOnce],
    ['20 to 80 ms, 1 000 at once', likeAProvider],
  ] as const) {
    const ratio = (tracked.perSecond / bare.perSecond).toFixed(2);
    say(tableRow(title, tracked.perSecond.toFixed(0), bare.perSecond.toFixed(0), ratio));
  }
}
