import type { Logger } from '../domain/logger.ts';
import type { Environment } from '../domain/settings.ts';

/** By convention of OpenTelemetry, or beginning with `carillon.`. Never a device token, a text, or the id that callers give a device. */
export type SpanAttributes = Record<string, string | number | boolean>;

export interface TracedSpan {
  rename(name: string): void;
  set(attributes: SpanAttributes): void;
  /** @param type the error's class or a status, never its message: messages may tell what they were about */
  fail(type: string): void;
}

export interface SpanStart {
  kind: 'server' | 'client' | 'internal';
  attributes?: SpanAttributes;
  /** W3C `traceparent` of a span elsewhere; default: the span that this is called in. Anything else begins a trace. */
  parent?: string | undefined;
}

/** A window of a sender. */
export interface WindowSpan {
  set(attributes: SpanAttributes): void;
  end(): void;
}

/** What a process tells of the way that its work takes, as spans of OpenTelemetry. Undefined wherever it is off. */
export interface Tracing {
  /** `work` in a span, which fails with it. */
  inSpan<T>(name: string, start: SpanStart, work: (span: TracedSpan) => Promise<T>): Promise<T>;
  /** `work` that goes on for too long to be a span: windows in it are traces of their own, linked to `parent`. */
  inNoSpan<T>(parent: string | undefined, work: () => Promise<T>): Promise<T>;
  /** `traceparent` of the span that this is called in. */
  current(): string | undefined;
  /** Undefined where nobody records the span that it would belong to. */
  startWindow(): WindowSpan | undefined;
  /** Sends what is left, for a few seconds at most. Never throws. */
  close(): Promise<void>;
}

/**
 * On where `OTEL_EXPORTER_OTLP_ENDPOINT` or `OTEL_EXPORTER_OTLP_TRACES_ENDPOINT` is set, and neither `OTEL_SDK_DISABLED=true` nor
 * `OTEL_TRACES_EXPORTER=none`. Otherwise nothing of OpenTelemetry is loaded.
 * @param service the default of `OTEL_SERVICE_NAME`
 */
export async function openTracing(env: Environment, service: string, log: Logger): Promise<Tracing | undefined> {
  const isSent = env.OTEL_EXPORTER_OTLP_ENDPOINT || env.OTEL_EXPORTER_OTLP_TRACES_ENDPOINT;
  if (!isSent || env.OTEL_SDK_DISABLED?.toLowerCase() === 'true' || env.OTEL_TRACES_EXPORTER === 'none')
    return undefined;
  const { createTracing } = await import('./open-telemetry.ts');
  return createTracing({ env, service, log });
}
