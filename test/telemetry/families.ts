import { createMetricsHandler } from '../../telemetry/handler.ts';
import { type ParsedFamily, parseStrictly } from './strict-parser.ts';

const nothing = () => {};
const answer = createMetricsHandler({ debug: nothing, info: nothing, warn: nothing, error: nothing });

/** What this process would tell now, by the name of the family. */
export async function readMetrics(): Promise<Map<string, ParsedFamily>> {
  const text = await (await answer(new Request('http://metrics/metrics'))).text();
  return new Map(parseStrictly(text, 'text').map((family) => [family.name, family]));
}

/** The sum of the samples that have these labels. */
export function sumOf(metrics: Map<string, ParsedFamily>, name: string, labels: Record<string, string> = {}): number {
  let sum = 0;
  for (const sample of metrics.get(name)?.samples ?? []) {
    if (Object.entries(labels).every(([label, value]) => sample.labels[label] === value)) sum += sample.value;
  }
  return sum;
}
