import type { WorkflowInterceptorsFactory } from '@temporalio/workflow';
import { traceHeader } from '../domain/trace-header.ts';

type Headers = Record<string, object>;

/**
 * Hands the trace that a workflow was started in to all that it starts, and on to its next run. Nothing of tracing is in the sandbox, and
 * workflows without a trace send nothing more.
 */
export const interceptors: WorkflowInterceptorsFactory = () => {
  let carried: Headers = {};

  function carry<Input extends { headers: Headers }>(input: Input): Input {
    return { ...input, headers: { ...carried, ...input.headers } };
  }

  return {
    inbound: [
      {
        execute(input, next) {
          const value = input.headers[traceHeader];
          if (value !== undefined) carried = { [traceHeader]: value };
          return next(input);
        },
      },
    ],
    outbound: [
      {
        scheduleActivity: (input, next) => next(carry(input)),
        scheduleLocalActivity: (input, next) => next(carry(input)),
        startChildWorkflowExecution: (input, next) => next(carry(input)),
        continueAsNew: (input, next) => next(carry(input)),
      },
    ],
  };
};
