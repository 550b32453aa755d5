/**
 * Metrics as text, in the two formats that Prometheus asks for: its own (https://prometheus.io/docs/instrumenting/exposition_formats/)
 * and OpenMetrics 1.0 (https://github.com/prometheus/OpenMetrics/blob/main/specification/OpenMetrics.md).
 */
export const textMediaType = 'text/plain; version=0.0.4; charset=utf-8';
export const openMetricsMediaType = 'application/openmetrics-text; version=1.0.0; charset=utf-8';

/** A metric with its samples, as lines of Prometheus's own format. */
export interface Family {
  name: string;
  type: string;
  /** As it stands in the text, escaped. */
  help: string;
  samples: string[];
}

/** @param text in Prometheus's own format; what belongs to no family is left out */
export function readFamilies(text: string): Family[] {
  const families = new Map<string, Family>();
  let current: Family | undefined;
  for (const line of text.split('\n')) {
    const [, keyword, name = '', rest = ''] = /^# (HELP|TYPE) (\S+) ?(.*)$/.exec(line) ?? [];
    if (keyword !== undefined) {
      current = families.get(name) ?? { name, type: 'untyped', help: '', samples: [] };
      families.set(name, current);
      if (keyword === 'HELP') current.help = rest;
      else current.type = rest;
    } else if (line !== '' && !line.startsWith('#')) current?.samples.push(line);
  }
  return [...families.values()];
}

/** Of several sources: where two have a family of one name, the first counts, for a name may stand in a text once. */
export function mergeFamilies(...sources: Family[][]): Family[] {
  const merged = new Map<string, Family>();
  for (const family of sources.flat()) if (!merged.has(family.name)) merged.set(family.name, family);
  return [...merged.values()];
}

export function toText(families: Family[]): string {
  return families
    .map(({ name, type, help, samples }) =>
      [`# HELP ${name} ${help}`, `# TYPE ${name} ${type}`, ...samples, ''].join('\n'),
    )
    .join('');
}

/** Counters lose their suffix in the name of the family, and must have it in each sample; the text says where it ends. */
export function toOpenMetrics(families: Family[]): string {
  const parts = families.map(({ name, type, help, samples }) => {
    const isCounter = type === 'counter' && name.endsWith('_total');
    const shown = isCounter ? name.slice(0, -'_total'.length) : name;
    // A counter without the suffix is none in the eyes of this format.
    const kind = type === 'untyped' || (type === 'counter' && !isCounter) ? 'unknown' : type;
    // Quotes are escaped here, and not in the other format.
    const text = help.replaceAll('"', '\\"');
    return [`# HELP ${shown} ${text}`, `# TYPE ${shown} ${kind}`, ...samples, ''].join('\n');
  });
  return `${parts.join('')}# EOF\n`;
}

/** Whether `Accept` prefers OpenMetrics 1.0, as Prometheus does. */
export function wantsOpenMetrics(accept: string | null): boolean {
  let best = { quality: 0, isOpenMetrics: false };
  for (const part of (accept ?? '').toLowerCase().split(',')) {
    const [mediaType = '', ...parameters] = part.split(';').map((word) => word.trim());
    const parameter = (name: string) => parameters.find((one) => one.startsWith(`${name}=`))?.slice(name.length + 1);
    const isOpenMetrics = mediaType === 'application/openmetrics-text' && (parameter('version') ?? '1.0.0') === '1.0.0';
    const isText = ['text/plain', 'text/*', '*/*'].includes(mediaType);
    const quality = Number(parameter('q') ?? 1);
    if ((isOpenMetrics || isText) && quality > best.quality) best = { quality, isOpenMetrics };
  }
  return best.isOpenMetrics;
}
