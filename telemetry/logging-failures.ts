import type { SpanExporter } from '@opentelemetry/sdk-trace';
import type { Logger } from '../domain/logger.ts';

/** Spans that could not be sent are lost, and said once until some arrive again: nothing else suffers. */
export function loggingFailures(exporter: SpanExporter, log: Logger): SpanExporter {
  let isLogged = false;
  return {
    export(spans, done) {
      exporter.export(spans, (result) => {
        // 0: success, `ExportResultCode`.
        if (result.code === 0) isLogged = false;
        else if (!isLogged) {
          isLogged = true;
          log.warn({ reason: result.error?.message }, 'traces could not be sent to the collector');
        }
        done(result);
      });
    },
    forceFlush: () => exporter.forceFlush?.() ?? Promise.resolve(),
    shutdown: () => exporter.shutdown(),
  };
}
