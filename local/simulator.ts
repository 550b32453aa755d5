import type { LeashHolder } from './leash-holder.ts';

export interface LocalSimulatorOptions {
  /** For its certificates and credentials. */
  directory: string;
  logFile: string;
  leash: LeashHolder;
}

/** What the simulator says of one notification. */
export interface LedgerCounts {
  /** Acceptances, repeats included. */
  accepted: number;
  distinctAccepted: number;
  repeats: number;
}

export interface LocalSimulator {
  readonly controlUrl: string;
  /** Settings that let the API and workers use it in place of the providers. */
  readonly env: Record<string, string>;
  readLedger(notificationId: string): Promise<LedgerCounts>;
  stop(): Promise<void>;
}

export async function startSimulator(_options: LocalSimulatorOptions): Promise<LocalSimulator> {
  throw new Error('not yet');
}
