import { counter } from './metrics.ts';

/**
 * - `missing`: a notification without a workflow, or with one that ended too early. - `unseen`: a workflow that had not seen the latest
 *   change. - `ended`: one that was terminated or failed, so the send is halted. - `lane`: entries that no worker was at.
 */
export const reconcilerFindings = counter({
  name: 'carillon_reconciler_findings_total',
  help: 'What the reconciler found and mended, by kind.',
  labels: ['kind'],
});

export const reconcilerRounds = counter({
  name: 'carillon_reconciler_rounds_total',
  help: 'Rounds of the reconciler, by whether they went through: failed where Temporal or PostgreSQL is away.',
  labels: ['result'],
});
