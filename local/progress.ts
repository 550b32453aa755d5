import type { NotificationView } from './api-client.ts';

/** Shows how far a send is: a bar that renews itself on a terminal, a line every other second elsewhere. */
export interface Progress {
  show(notification: NotificationView): void;
  /** Leaves the last state standing. */
  end(): void;
}

const barWidth = 28;
const lineIntervalMs = 2_000;
const idleLineIntervalMs = 15_000;

export function createProgress(stream: NodeJS.WriteStream, total: number): Progress {
  const startedAt = performance.now();
  let lastLineAt = Number.NEGATIVE_INFINITY;
  let lastText = '';
  let lastDone = -1;
  return {
    show(notification) {
      const done = notification.books.audience - notification.books.pending;
      const intervalMs = done === lastDone ? idleLineIntervalMs : lineIntervalMs;
      lastText = describe(notification, total, (performance.now() - startedAt) / 1000);
      if (stream.isTTY) {
        stream.write(`\r\x1b[K${lastText.slice(0, (stream.columns || 120) - 1)}`);
      } else if (performance.now() - lastLineAt >= intervalMs) {
        lastLineAt = performance.now();
        lastDone = done;
        stream.write(`${lastText}\n`);
      }
    },
    end() {
      stream.write(stream.isTTY ? '\n' : `${lastText}\n`);
    },
  };
}

function describe({ state, books }: NotificationView, total: number, seconds: number): string {
  const done = books.audience - books.pending;
  const filled = Math.min(barWidth, Math.floor((done / Math.max(total, 1)) * barWidth));
  const bar = '█'.repeat(filled) + '░'.repeat(barWidth - filled);
  const outcomes = Object.entries(books.outcomes)
    .filter(([, count]) => count > 0)
    .map(([outcome, count]) => `${outcome} ${formatCount(count)}`);
  const parts = [`${state} ${bar} ${formatCount(done)} of ${formatCount(total)}`, ...outcomes];
  if (books.pending > 0) parts.push(`pending ${formatCount(books.pending)}`);
  parts.push(`${formatCount(Math.round(done / Math.max(seconds, 0.001)))}/s`);
  return parts.join(' · ');
}

/** `1 234 567` */
export function formatCount(count: number): string {
  return count.toString().replace(/\B(?=(\d{3})+$)/g, ' ');
}
