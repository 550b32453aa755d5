import { Counter, Gauge, type Metric, Registry } from 'prom-client';

/**
 * What a process counts, one for each process: `prom-client`, for it is the client that most know, small, and of no cost while nobody asks.
 * Its counters are for what happens now and then; what happens for each device is counted in plain fields, which are read at a scrape.
 */
export const registry = new Registry();

interface About<L extends string> {
  name: string;
  help: string;
  labels?: readonly L[];
}

export function counter<L extends string = never>({ name, help, labels = [] }: About<L>): Counter<L> {
  return new Counter({ name, help, labelNames: labels, registers: [registry] });
}

export function gauge<L extends string = never>({ name, help, labels = [] }: About<L>): Gauge<L> {
  return new Gauge({ name, help, labelNames: labels, registers: [registry] });
}

/** One line of a family. */
export interface Sample {
  labels: Record<string, string>;
  value: number;
  /** Of a histogram: `_bucket`, `_sum` or `_count`. */
  suffix?: string;
}

/** A family whose samples are made when they are asked for, of numbers that are kept elsewhere. */
export function collected(
  type: 'counter' | 'gauge' | 'histogram',
  { name, help }: Pick<About<never>, 'name' | 'help'>,
  read: () => Iterable<Sample>,
): void {
  const family = {
    ...{ name, help, type },
    reset() {},
    async get() {
      const values = Array.from(read(), ({ labels, value, suffix = '' }) => {
        return { labels, value, metricName: name + suffix };
      });
      return { name, help, type, values, aggregator: 'sum' };
    },
  };
  registry.registerMetric(family as unknown as Metric);
}
