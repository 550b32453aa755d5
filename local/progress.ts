import type { NotificationView } from './api-client.ts';

/** Shows how far a send is: a bar that renews itself on a terminal, a plain line every other second elsewhere. */
export interface Progress {
  show(notification: NotificationView): void;
  /** Leaves the last state standing. */
  end(): void;
}

const barWidth = 28;
const lineIntervalMs = 2_000;
const idleLineIntervalMs = 15_000;
const rateIntervalMs = 1_000;
/** Below this part of the best rate the first attempts are over, and only refused devices are waited for. */
const trickle = 0.05;

export function createProgress(
  stream: Pick<NodeJS.WriteStream, 'isTTY' | 'columns' | 'write'>,
  total: number,
): Progress {
  let lastLineAt = Number.NEGATIVE_INFINITY;
  let lastLineDone = -1;
  let last: NotificationView | undefined;
  let mark = { at: performance.now(), done: 0 };
  let rate: number | undefined;
  let bestRate = 0;

  function pace(done: number): string[] {
    const seconds = (performance.now() - mark.at) / 1000;
    if (seconds * 1000 >= rateIntervalMs) {
      rate = (done - mark.done) / seconds;
      bestRate = Math.max(bestRate, rate);
      mark = { at: performance.now(), done };
    }
    if (!rate || done === total) return [];
    const isWaiting = rate < bestRate * trickle && done > total / 2;
    return [isWaiting ? 'waiting for those that were refused at first' : `${formatCount(Math.round(rate))}/s`];
  }

  function write(notification: NotificationView, more: string[]): void {
    const parts = describe(notification, total, stream.isTTY);
    const text = [...parts, ...more].join(' · ');
    stream.write(stream.isTTY ? `\r\x1b[K${text.slice(0, (stream.columns || 120) - 1)}` : `${text}\n`);
  }

  return {
    show(notification) {
      last = notification;
      const done = notification.books.audience - notification.books.pending;
      const more = pace(done);
      const intervalMs = done === lastLineDone ? idleLineIntervalMs : lineIntervalMs;
      if (!stream.isTTY && performance.now() - lastLineAt < intervalMs) return;
      lastLineAt = performance.now();
      lastLineDone = done;
      write(notification, more);
    },
    end() {
      if (last) write(last, []);
      if (stream.isTTY) stream.write('\n');
    },
  };
}

function describe({ state, books }: NotificationView, total: number, hasBar: boolean): string[] {
  const done = books.audience - books.pending;
  const filled = Math.min(barWidth, Math.floor((done / Math.max(total, 1)) * barWidth));
  const bar = hasBar ? `${'█'.repeat(filled)}${'░'.repeat(barWidth - filled)} ` : '';
  const outcomes = Object.entries(books.outcomes)
    .filter(([, count]) => count > 0)
    .map(([outcome, count]) => `${outcome} ${formatCount(count)}`);
  const parts = [`${state} ${bar}${formatCount(done)} of ${formatCount(total)}`, ...outcomes];
  if (books.pending > 0) parts.push(`pending ${formatCount(books.pending)}`);
  return parts;
}

/** `1 234 567` */
export function formatCount(count: number): string {
  return count.toString().replace(/\B(?=(\d{3})+$)/g, ' ');
}
