/**
 * The header in which Temporal carries a trace from the start of a workflow to its activities: of Temporal's own interceptors, so that
 * programs in other languages understand it. Its value is `{ traceparent }`.
 */
export const traceHeader = '_tracer-data';
