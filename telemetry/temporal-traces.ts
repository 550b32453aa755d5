import type { WorkflowClientInterceptor } from '@temporalio/client';
import { defaultPayloadConverter, type Headers } from '@temporalio/common';
import type { ActivityInterceptorsFactory } from '@temporalio/worker';
import { traceHeader } from '../domain/trace-header.ts';
import type { Tracing } from './tracing.ts';

/** A start is a span, and the workflow's activities belong to it: `workflows/trace-header.ts` hands it on. */
export function traceStarts(tracing: Tracing): WorkflowClientInterceptor {
  function traced<Input extends { workflowType: string; headers: Headers; options: { workflowId: string } }, Result>(
    input: Input,
    next: (input: Input) => Promise<Result>,
  ): Promise<Result> {
    const attributes = { temporalWorkflowId: input.options.workflowId };
    return tracing.inSpan(`StartWorkflow:${input.workflowType}`, { kind: 'client', attributes }, () => {
      const traceparent = tracing.current();
      const value = defaultPayloadConverter.toPayload({ traceparent });
      return next({ ...input, headers: { ...input.headers, [traceHeader]: value } });
    });
  }

  return {
    startWithDetails: (input, next) => traced(input, next),
    signalWithStart: (input, next) => traced(input, next),
  };
}

/**
 * An activity is a span, of the trace that its workflow was started in. One that is `endless` is none: it would be told of when it ends,
 * and its windows are traces of their own.
 */
export function traceActivities(tracing: Tracing, endless: string): ActivityInterceptorsFactory {
  return ({ info }) => ({
    inbound: {
      execute(input, next) {
        const parent = parentOf(input.headers);
        if (info.activityType === endless) return tracing.inNoSpan(parent, () => next(input));
        const attributes = {
          temporalWorkflowId: info.workflowExecution?.workflowId ?? '',
          temporalRunId: info.workflowExecution?.runId ?? '',
          'temporal.activity.attempt': info.attempt,
        };
        return tracing.inSpan(`RunActivity:${info.activityType}`, { kind: 'internal', attributes, parent }, () =>
          next(input),
        );
      },
    },
  });
}

function parentOf(headers: Headers): string | undefined {
  const payload = headers[traceHeader];
  if (payload === undefined) return undefined;
  const { traceparent } = defaultPayloadConverter.fromPayload<{ traceparent?: unknown }>(payload) ?? {};
  return typeof traceparent === 'string' ? traceparent : undefined;
}
