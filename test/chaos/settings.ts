/** The stack for the runs: the same engine with shorter waits, and with small batches so that there are many. */
import { mkdirSync, mkdtempSync } from 'node:fs';
import path from 'node:path';
import type { StackOptions } from '../../local/stack.ts';

const windowSize = 100;
const maxInFlight = 100;
const openBatches = 4;
const maxAttempts = 5;

/** Limits that follow from the settings, for the check of the books. */
export const chaosLimits = {
  maxAttempts,
  /** A window of unwritten outcomes, one being sent, one reserved ahead, and the requests under way. */
  inFlightOfBatch: 3 * windowSize + maxInFlight,
  /** Requests that all workers together have under way, including those that a provider has not read yet. */
  inFlightOfSend: openBatches * maxInFlight,
} as const;

const settings = {
  CARILLON_BATCH_SIZE: '500',
  CARILLON_WINDOW_SIZE: String(windowSize),
  CARILLON_MAX_IN_FLIGHT: String(maxInFlight),
  // Few enough that a send goes through several runs of its workflow.
  CARILLON_OPEN_BATCHES: String(openBatches),
  CARILLON_BATCHES_PER_RUN: '5',
  CARILLON_HEARTBEAT_TIMEOUT_MS: '3000',
  CARILLON_REQUEST_DEADLINE_MS: '2500',
  CARILLON_RETRY_BASE_MS: '200',
  CARILLON_RETRY_MAX_MS: '1000',
  CARILLON_MAX_ATTEMPTS: String(maxAttempts),
  CARILLON_RECONCILE_INTERVAL_MS: '1000',
  CARILLON_SHUTDOWN_GRACE_MS: '4000',
  CARILLON_LANES: '2',
  CARILLON_WEBHOOK_ALLOWED_NETWORKS: '127.0.0.0/8',
  LOG_LEVEL: 'warn',
};

/** @param parent the stack's folder is made in it */
export function chaosStack(parent: string): StackOptions {
  mkdirSync(parent, { recursive: true });
  const directory = mkdtempSync(path.join(parent, 'chaos-'));
  return {
    directory,
    isTemporary: true,
    ports: 'free',
    hasWebUi: false,
    workers: 2,
    env: settings,
  };
}
