import { AsyncLocalStorage } from 'node:async_hooks';
import { type Context, ROOT_CONTEXT, type Span, SpanKind, SpanStatusCode, trace } from '@opentelemetry/api';
import { OTLPTraceExporter } from '@opentelemetry/exporter-trace-otlp-proto';
import { defaultResource, detectResources, envDetector, resourceFromAttributes } from '@opentelemetry/resources';
import { BatchSpanProcessor, type SpanExporter, TracerProvider } from '@opentelemetry/sdk-trace';
import type { Logger } from '../domain/logger.ts';
import type { Environment } from '../domain/settings.ts';
import { version } from '../domain/version.ts';
import { within } from '../domain/within.ts';
import { loggingFailures } from './logging-failures.ts';
import { chooseSampler } from './sampler.ts';
import { formatTraceparent, parseTraceparent } from './traceparent.ts';
import type { Tracing } from './tracing.ts';

const closeMs = 3_000;
const kinds = { server: SpanKind.SERVER, client: SpanKind.CLIENT, internal: SpanKind.INTERNAL } as const;

/** What code runs in: a span, or work that is none (with what its windows are linked to). */
interface Place {
  span?: Span;
  parent?: string | undefined;
}

/**
 * Spans go to a collector by OTLP over HTTP, in batches from the background. The exporter reads its own settings (`OTEL_EXPORTER_OTLP_…`)
 * from the process's environment. Its libraries are of the process, but no global of OpenTelemetry is set: nobody else's spans come along.
 */
export function createTracing(options: {
  env: Environment;
  service: string;
  log: Logger;
  /** Default: by OTLP. */
  exporter?: SpanExporter;
}): Tracing {
  const { env, service, log } = options;
  const { sampler, problem } = chooseSampler(env);
  const protocol = env.OTEL_EXPORTER_OTLP_TRACES_PROTOCOL || env.OTEL_EXPORTER_OTLP_PROTOCOL || 'http/protobuf';
  if (problem !== undefined) log.warn({}, problem);
  if (protocol !== 'http/protobuf') log.warn({ protocol }, 'traces are sent by http/protobuf alone');
  const provider = new TracerProvider({
    sampler,
    resource: defaultResource()
      .merge(resourceFromAttributes({ 'service.name': service, 'service.version': version }))
      .merge(detectResources({ detectors: [envDetector] })),
    spanProcessors: [
      new BatchSpanProcessor({ exporter: loggingFailures(options.exporter ?? new OTLPTraceExporter(), log) }),
    ],
  });
  const tracer = provider.getTracer('carillon', version);
  const places = new AsyncLocalStorage<Place>();
  log.info({}, 'traces are sent to a collector');

  return {
    inSpan(name, { kind, attributes = {}, parent }, work) {
      const context = parent === undefined ? contextOf(places.getStore()?.span) : contextFrom(parent);
      const span = tracer.startSpan(name, { kind: kinds[kind], attributes }, context);
      const fail = (type: string) => {
        span.setAttribute('error.type', type);
        span.setStatus({ code: SpanStatusCode.ERROR });
      };
      return places.run({ span }, async () => {
        try {
          return await work({
            rename: (to) => void span.updateName(to),
            set: (more) => void span.setAttributes(more),
            fail,
          });
        } catch (error) {
          fail(error instanceof Error ? error.name : typeof error);
          throw error;
        } finally {
          span.end();
        }
      });
    },

    inNoSpan: (parent, work) => places.run({ parent }, work),

    current() {
      const span = places.getStore()?.span;
      return span && formatTraceparent(span.spanContext());
    },

    startWindow() {
      const place = places.getStore();
      if (place === undefined || place.span?.isRecording() === false) return undefined;
      const linked = parseTraceparent(place.parent);
      const span = tracer.startSpan('window', linked ? { links: [{ context: linked }] } : {}, contextOf(place.span));
      if (!span.isRecording()) return undefined;
      return { set: (attributes) => void span.setAttributes(attributes), end: () => span.end() };
    },

    async close() {
      await within(
        provider.shutdown().catch(() => {}),
        closeMs,
      );
    },
  };
}

function contextOf(span: Span | undefined): Context {
  return span === undefined ? ROOT_CONTEXT : trace.setSpan(ROOT_CONTEXT, span);
}

function contextFrom(traceparent: string): Context {
  const parent = parseTraceparent(traceparent);
  return parent === undefined ? ROOT_CONTEXT : trace.setSpanContext(ROOT_CONTEXT, parent);
}
