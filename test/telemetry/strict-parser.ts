/**
 * Reads metrics as their two specifications demand, and refuses what a lenient reader lets pass.
 * https://prometheus.io/docs/instrumenting/exposition_formats/
 * https://github.com/prometheus/OpenMetrics/blob/main/specification/OpenMetrics.md
 */
import assert from 'node:assert/strict';

export interface ParsedFamily {
  name: string;
  type: string;
  help: string;
  samples: ParsedSample[];
}

export interface ParsedSample {
  name: string;
  labels: Record<string, string>;
  value: number;
}

const namePattern = /^[a-zA-Z_:][a-zA-Z0-9_:]*$/;
const suffixes: Record<string, { text: string[]; openMetrics: string[] }> = {
  counter: { text: [''], openMetrics: ['_total', '_created'] },
  gauge: { text: [''], openMetrics: [''] },
  histogram: { text: ['_bucket', '_sum', '_count'], openMetrics: ['_bucket', '_sum', '_count', '_created'] },
  summary: { text: ['', '_sum', '_count'], openMetrics: ['', '_sum', '_count', '_created'] },
  untyped: { text: [''], openMetrics: [] },
  unknown: { text: [], openMetrics: [''] },
};

/** @throws {AssertionError} naming the line that breaks a rule */
export function parseStrictly(text: string, format: 'text' | 'openMetrics'): ParsedFamily[] {
  const isOpenMetrics = format === 'openMetrics';
  assert.ok(text.endsWith('\n'), 'the last line ends');
  const lines = text.slice(0, -1).split('\n');
  if (isOpenMetrics) assert.equal(lines.pop(), '# EOF');
  const families = new Map<string, ParsedFamily>();
  const seen = new Set<string>();
  let current: ParsedFamily | undefined;
  for (const line of lines) {
    const say = (rule: string) => `${rule}: ${line}`;
    if (line.startsWith('#')) {
      const [, keyword, name = '', rest = ''] = /^# (HELP|TYPE) (\S+)(?: (.*))?$/.exec(line) ?? [];
      assert.ok(keyword, say('a comment is HELP or TYPE'));
      assert.match(name, namePattern, say('a name'));
      if (current?.name !== name) {
        assert.ok(!families.has(name), say('a family stands in one place'));
        current = { name, type: '', help: '', samples: [] };
        families.set(name, current);
      }
      assert.equal(current.samples.length, 0, say('before its samples'));
      if (keyword === 'TYPE') {
        assert.equal(current.type, '', say('one type'));
        assert.ok(suffixes[rest], say('a known type'));
        if (isOpenMetrics && rest === 'counter') assert.ok(!name.endsWith('_total'), say('a family without suffix'));
        current.type = rest;
      } else {
        assert.notEqual(rest, '', say('a text'));
        assert.doesNotMatch(rest.replaceAll(/\\[\\n"]/g, ''), isOpenMetrics ? /[\\"]/ : /\\/, say('escapes'));
        current.help = rest;
      }
      continue;
    }
    const [, name = '', labelText = '', number = ''] = /^([^\s{]+)(?:\{(.*)\})? (\S+)$/.exec(line) ?? [];
    assert.match(name, namePattern, say('a sample'));
    assert.ok(current?.type, say('after its type'));
    const allowed = suffixes[current.type]![format].map((suffix) => current!.name + suffix);
    assert.ok(allowed.includes(name), say(`one of ${allowed}`));
    assert.match(number, /^([-+]?(\d+\.?\d*([eE][-+]?\d+)?|Inf)|NaN|Nan)$/, say('a number'));
    const labels = parseLabels(labelText, say);
    const identity = JSON.stringify([name, Object.entries(labels).sort()]);
    assert.ok(!seen.has(identity), say('told once'));
    seen.add(identity);
    current.samples.push({ name, labels, value: Number(number.replace('Inf', 'Infinity')) });
  }
  for (const family of families.values()) checkFamily(family);
  return [...families.values()];
}

function parseLabels(text: string, say: (rule: string) => string): Record<string, string> {
  const labels: Record<string, string> = {};
  const one = /([a-zA-Z_][a-zA-Z0-9_]*)="((?:[^"\\\n]|\\[\\"n])*)"(,|$)/y;
  while (one.lastIndex < text.length) {
    const found = one.exec(text);
    assert.ok(found, say('labels'));
    assert.ok(!(found[1]! in labels), say('a label once'));
    labels[found[1]!] = found[2]!.replaceAll(/\\(.)/g, (_, escaped) => (escaped === 'n' ? '\n' : escaped));
  }
  return labels;
}

function checkFamily({ name, type, help, samples }: ParsedFamily): void {
  assert.notEqual(type, '', `${name} has a type`);
  assert.notEqual(help, '', `${name} has a help text`);
  if (type === 'counter') for (const { value } of samples) assert.ok(value >= 0, `${name} is not negative`);
  if (type !== 'histogram') return;
  const buckets = new Map<string, { upTo: number; value: number }[]>();
  const counts = new Map<string, number>();
  for (const {
    name: sample,
    labels: { le = '', ...labels },
    value,
  } of samples) {
    const key = JSON.stringify(labels);
    if (sample.endsWith('_bucket')) {
      buckets.set(key, [...(buckets.get(key) ?? []), { upTo: Number(le.replace('Inf', 'Infinity')), value }]);
    } else if (sample.endsWith('_count')) counts.set(key, value);
  }
  assert.deepEqual([...buckets.keys()].sort(), [...counts.keys()].sort(), `${name}: each has buckets and a count`);
  for (const [key, row] of buckets) {
    row.forEach(({ upTo, value }, i) => {
      const before = row[i - 1];
      assert.ok(!before || (before.upTo < upTo && before.value <= value), `${name}: buckets ascend`);
    });
    assert.deepEqual(row.at(-1), { upTo: Number.POSITIVE_INFINITY, value: counts.get(key) }, `${name}: up to all`);
  }
}
