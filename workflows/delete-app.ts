import { continueAsNew, setCurrentDetails, sleep, workflowInfo } from '@temporalio/workflow';
import type { AppDeletionStep, DeleteAppInput } from '../domain/app-deletion.ts';
import { count } from './details.ts';
import { deleteAppStep } from './notification-activities.ts';
import { setSearchAttributes } from './search-attributes.ts';

/** What it has deleted; undefined: the app was gone before. */
export type DeleteAppResult = AppDeletionStep['deletion'];

/** Deletes an app, step by step until it is gone. PostgreSQL says how far it is: a workflow that is started again goes on there. */
export async function deleteAppWorkflow(input: DeleteAppInput): Promise<DeleteAppResult> {
  for (;;) {
    const step = await deleteAppStep(input);
    setCurrentDetails(describe(input, step));
    if (step.isSearchable && step.name !== undefined) setSearchAttributes({ CarillonApp: step.name });
    if (step.stage === 'gone') return step.deletion;
    if (step.pauseMs > 0) await sleep(step.pauseMs, { summary: headlines[step.stage] });
    if (workflowInfo().continueAsNewSuggested) await continueAsNew<typeof deleteAppWorkflow>(input);
  }
}

const headlines: Record<AppDeletionStep['stage'], string> = {
  ending: 'sends and messages under way are being ended',
  deleting: 'rows are being deleted',
  waiting: 'nothing is left; waits until every API process has heard of it',
  gone: 'is gone',
};

function describe({ appId }: DeleteAppInput, { stage, name, deletion }: AppDeletionStep): string {
  const { devices = 0, notifications = 0, messages = 0 } = deletion ?? {};
  return [
    `**App ${name ?? appId}: ${headlines[stage]}**`,
    '',
    `Deleted so far: ${count(devices)} devices, ${count(notifications)} notifications, ${count(messages)} messages.`,
    '',
    `As of ${new Date().toISOString()}.`,
  ].join('\n');
}
