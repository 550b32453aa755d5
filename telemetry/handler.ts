import type { Logger } from '../domain/logger.ts';
import { within } from '../domain/within.ts';
import {
  type Family,
  mergeFamilies,
  openMetricsMediaType,
  readFamilies,
  textMediaType,
  toOpenMetrics,
  toText,
  wantsOpenMetrics,
} from './exposition.ts';
import { registry } from './metrics.ts';

/** Families of another origin than this process's own registry; may throw and may never answer. */
export type MetricsSource = () => Promise<Family[]>;

interface MetricsHandlerOptions {
  /** Awaited before the registry is read. Must not throw, and must end soon. */
  prepare?: () => Promise<void>;
  /** By a name for the log. */
  sources?: Record<string, MetricsSource>;
}

/** Prometheus gives up after ten seconds, by default. */
const deadlineMs = 5_000;

/** Answers `GET /metrics`. Never throws, and always within a few seconds: what cannot be told is left out and logged once. */
export function createMetricsHandler(
  log: Logger,
  { prepare, sources = {} }: MetricsHandlerOptions = {},
): (request: Request) => Promise<Response> {
  const silent = new Set<string>();

  async function familiesOf(name: string, source: MetricsSource): Promise<Family[]> {
    try {
      const families = await within(source(), deadlineMs);
      if (families === undefined) throw new Error(`no answer within ${deadlineMs} ms`);
      silent.delete(name);
      return families;
    } catch (err) {
      if (!silent.has(name)) log.warn({ err, source: name }, 'metrics are left out');
      silent.add(name);
      return [];
    }
  }

  const own = () =>
    registry
      .getMetricsAsArray()
      .map(({ name }) => familiesOf(name, async () => readFamilies(await registry.getSingleMetricAsString(name))));

  return async function answerMetrics(request) {
    const { pathname } = new URL(request.url);
    if (pathname !== '/metrics') return new Response('There is only /metrics here.\n', { status: 404 });
    if (request.method !== 'GET' && request.method !== 'HEAD') {
      return new Response('Ask by GET.\n', { status: 405, headers: { allow: 'GET, HEAD' } });
    }
    await prepare?.();
    const others = Object.entries(sources).map(([name, source]) => familiesOf(name, source));
    const families = mergeFamilies(...(await Promise.all([...own(), ...others])));
    const isOpenMetrics = wantsOpenMetrics(request.headers.get('accept'));
    const text = isOpenMetrics ? toOpenMetrics(families) : toText(families);
    const contentType = isOpenMetrics ? openMetricsMediaType : textMediaType;
    return new Response(text, { headers: { 'content-type': contentType, 'cache-control': 'no-store' } });
  };
}
