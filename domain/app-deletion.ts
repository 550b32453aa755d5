import type { AppDeletion } from './app.ts';
import { deleteAppWorkflowId } from './ids.ts';
import { taskQueuePrefix } from './task-queues.ts';

/** Of `deleteAppWorkflow`. */
export interface DeleteAppInput {
  appId: number;
}

/** What a step of the deletion found, or did. */
export interface AppDeletionStep {
  /**
   * `ending`: sends and messages that are under way are being ended; `deleting`: rows are; `waiting`: an API process may not have heard of
   * the deletion yet; `gone`: nothing is left.
   */
  stage: 'ending' | 'deleting' | 'waiting' | 'gone';
  /** Of the app; undefined: it was gone before. */
  name?: string;
  deletion?: AppDeletion;
  /** Temporal has the search attributes of `domain/search-attributes.ts`. */
  isSearchable?: true;
  /** Before the next step, in milliseconds. */
  pauseMs: number;
}

/** The options of Temporal's start. A repeat finds the workflow that runs. */
export function appDeletionStart(app: { id: number; name: string }, taskQueue: string) {
  return {
    workflowId: deleteAppWorkflowId(taskQueuePrefix(taskQueue), app.id),
    taskQueue,
    args: [{ appId: app.id }] as [DeleteAppInput],
    workflowIdReusePolicy: 'ALLOW_DUPLICATE',
    workflowIdConflictPolicy: 'USE_EXISTING',
    staticSummary: `deletion of app ${app.name}`,
  } as const;
}
