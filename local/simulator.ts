import { readFileSync, statSync } from 'node:fs';
import { SimulatorControl } from '../simulator/control-client.ts';
import { simulatorEnvironment } from '../simulator/launch.ts';
import type { SimulatorAddresses } from '../simulator/simulator.ts';
import { type Child, startReadyChild } from './child.ts';
import type { LeashHolder } from './leash-holder.ts';
import { projectRoot } from './paths.ts';
import { findFreePort } from './ports.ts';

export interface LocalSimulatorOptions {
  /** For its certificates and credentials, which stay the same between starts. */
  directory: string;
  logFile: string;
  leash: LeashHolder;
}

/** The provider simulator as one process of the stack. A restart keeps its addresses and credentials, not its ledger. */
export interface LocalSimulator {
  readonly controlUrl: string;
  /** Settings that let the API and workers use it in place of the providers. */
  readonly env: Record<string, string>;
  /** Ledger, rules and faults. */
  readonly control: SimulatorControl;
}

/**
 * Picks the ports once. `launch` starts the process, which is ready when it returns; `simulator` may be used after the first
 * launch.
 */
export async function prepareSimulator(
  options: LocalSimulatorOptions,
): Promise<{ launch(): Promise<Child>; simulator(): LocalSimulator }> {
  const names = ['apns', 'apns-sandbox', 'fcm', 'oauth', 'control'];
  const ports = await Promise.all(names.map((name) => findFreePort().then((port) => [`--${name}-port`, String(port)])));
  let addresses: SimulatorAddresses | undefined;

  async function launch(): Promise<Child> {
    const logStart = statSync(options.logFile, { throwIfNoEntry: false })?.size ?? 0;
    const child = await startReadyChild(
      {
        name: 'simulator',
        command: process.execPath,
        args: ['simulator/main.ts', '--directory', options.directory, ...ports.flat()],
        cwd: projectRoot,
        logFile: options.logFile,
        leash: options.leash,
        stopGraceMs: 3_000,
      },
      async () => {
        addresses = readReadyLine(options.logFile, logStart);
        return addresses !== undefined;
      },
      30_000,
    );
    return child;
  }

  function simulator(): LocalSimulator {
    if (!addresses) throw new Error('The simulator was not launched yet');
    const { controlUrl } = addresses;
    return { controlUrl, env: simulatorEnvironment(addresses), control: new SimulatorControl(controlUrl) };
  }

  return { launch, simulator };
}

/** The simulator's first line of output, once it is whole. */
function readReadyLine(logFile: string, logStart: number): SimulatorAddresses | undefined {
  const lines = readFileSync(logFile).subarray(logStart).toString('utf8').split('\n').slice(0, -1);
  const ready = lines.find((line) => line.startsWith('{"ready":true'));
  return ready === undefined ? undefined : JSON.parse(ready);
}
