import type { ProviderName } from '../domain/device.ts';
import { answerBoundsMs, answerClasses, type ProviderTraffic } from '../domain/provider-traffic.ts';
import { collected, type Sample } from './metrics.ts';

/** Tells what the providers' clients count. To be called once a process. */
export function watchProviders(traffic: Record<ProviderName, ProviderTraffic>): void {
  const providers = Object.entries(traffic);
  const each = (read: (traffic: ProviderTraffic) => number) => () =>
    providers.map(([provider, seen]) => ({ labels: { provider }, value: read(seen) }));
  const eachCause = (label: string, read: (traffic: ProviderTraffic) => Record<string, number>) => () =>
    providers.flatMap(([provider, seen]) =>
      Object.entries(read(seen)).map(([cause, value]) => ({ labels: { provider, [label]: cause }, value })),
    );

  collected(
    'histogram',
    {
      name: 'carillon_provider_request_duration_seconds',
      help: 'From the writing of a request to its answer, by the class of the answer.',
    },
    () => providers.flatMap(([provider, seen]) => durations(provider, seen)),
  );
  collected(
    'gauge',
    { name: 'carillon_provider_requests_in_flight', help: 'Requests on connections to the provider.' },
    each(({ now }) => now.requests),
  );
  collected(
    'counter',
    {
      name: 'carillon_provider_requests_unanswered_total',
      help: 'Requests that may have been processed and got no answer, by cause: their devices are in doubt.',
    },
    eachCause('cause', ({ unanswered }) => unanswered),
  );
  collected(
    'counter',
    {
      name: 'carillon_provider_requests_not_processed_total',
      help: 'Requests that were given up before they were processed, by cause.',
    },
    eachCause('cause', ({ notProcessed }) => notProcessed),
  );
  collected(
    'counter',
    {
      name: 'carillon_provider_requests_resent_total',
      help: 'Requests sent again at once, for they had provably not been processed.',
    },
    each(({ resent }) => resent),
  );
  collected(
    'counter',
    { name: 'carillon_provider_streams_refused_total', help: 'Requests that the provider refused by REFUSED_STREAM.' },
    each(({ refusedStreams }) => refusedStreams),
  );
  collected(
    'gauge',
    { name: 'carillon_provider_connections', help: 'Connections to the provider that stand.' },
    each(({ now }) => now.connections),
  );
  collected(
    'counter',
    { name: 'carillon_provider_connections_opened_total', help: 'Connections that were asked for.' },
    each(({ connectionsOpened }) => connectionsOpened),
  );
  collected(
    'counter',
    {
      name: 'carillon_provider_connections_closed_total',
      help: 'Connections by how they ended: done in order, connect_failed, ping_timeout where one fell silent, and so on.',
    },
    eachCause('cause', ({ closed }) => closed),
  );
  collected(
    'counter',
    { name: 'carillon_provider_goaways_total', help: 'Connections that the provider said goodbye to (GOAWAY).' },
    each(({ goaways }) => goaways),
  );
  collected(
    'counter',
    {
      name: 'carillon_provider_tokens_total',
      help: 'Provider and access tokens: made by this process, shared by another, failed.',
    },
    eachCause('result', ({ tokens }) => tokens),
  );
}

function durations(provider: string, { answers, answerMs }: ProviderTraffic): Sample[] {
  const width = answerBoundsMs.length + 1;
  return answerClasses.flatMap((answer, kind): Sample[] => {
    const labels = { provider, answer };
    let sum = 0;
    const buckets = Array.from(answers.subarray(kind * width, (kind + 1) * width), (count, i): Sample => {
      sum += count;
      const boundMs = answerBoundsMs[i];
      const le = boundMs === undefined ? '+Inf' : String(boundMs / 1000);
      return { labels: { ...labels, le }, value: sum, suffix: '_bucket' };
    });
    return [
      ...buckets,
      { labels, value: answerMs[kind]! / 1000, suffix: '_sum' },
      { labels, value: sum, suffix: '_count' },
    ];
  });
}
