import type { Client } from '@temporalio/client';
import { listDeletionsOfAllApps } from '../db/app-deletion.ts';
import { appDeletionStart } from '../domain/app-deletion.ts';
import { deleteAppWorkflowType } from '../domain/ids.ts';
import type { ActivityDeps } from './activities.ts';

const deadlineMs = 5_000;

/** Starts the workflow of every app that is being deleted; where it runs already, nothing happens. */
export async function startAppDeletions({ db }: ActivityDeps, client: Client, taskQueue: string): Promise<void> {
  for (const app of await listDeletionsOfAllApps(db)) {
    await client.withDeadline(Date.now() + deadlineMs, () =>
      client.workflow.start(deleteAppWorkflowType, appDeletionStart(app, taskQueue)),
    );
  }
}
