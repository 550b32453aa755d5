import { Histogram } from 'prom-client';
import { counter, gauge, registry } from './metrics.ts';

const methods = new Set(['GET', 'HEAD', 'POST', 'PUT', 'PATCH', 'DELETE', 'OPTIONS']);

const requests = counter({
  name: 'carillon_http_requests_total',
  help: 'Requests to the API that were answered, by the pattern of their route.',
  labels: ['route', 'method', 'status'],
});
const durations = new Histogram({
  name: 'carillon_http_request_duration_seconds',
  help: 'From the request to the head of its answer; what streams its answer goes on after that.',
  labelNames: ['route', 'method'],
  buckets: [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10],
  registers: [registry],
});
export const requestsUnderWay = gauge({
  name: 'carillon_http_requests_in_flight',
  help: 'Requests to the API that wait for the head of their answer.',
});

/** @param route the pattern, never the path: it holds the ids that callers give their devices */
export function countRequest(
  { route, method: given, status }: { route: string; method: string; status: number },
  seconds: number,
): void {
  // Anybody may make up a method.
  const method = methods.has(given) ? given : 'other';
  requests.inc({ route, method, status });
  durations.observe({ route, method }, seconds);
}

export const importRows = counter({
  name: 'carillon_import_rows_total',
  help: 'Rows of device imports, by what became of them.',
  labels: ['result'],
});

export const acceptedMessages = counter({
  name: 'carillon_messages_accepted_total',
  help: 'Messages to one person that were accepted, by how they came: one in a request, or lines of a stream.',
  labels: ['by'],
});

export const toldEvents = counter({
  name: 'carillon_events_total',
  help: 'What devices told of sends, by what became of it: accepted, repeated, unknown, or refused for its type.',
  labels: ['result'],
});
