import { defineSignal } from '@temporalio/workflow';
import { wakeSignalName } from '../domain/ids.ts';

/** Carries nothing: it makes `sendNotificationWorkflow` read its state from PostgreSQL, which is the authority. */
export const wakeSignal = defineSignal(wakeSignalName);
