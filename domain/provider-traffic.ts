/** What answers are told apart by: the provider's word for each is in the books. */
export const answerClasses = ['2xx', '4xx', '429', '5xx'] as const;
/** Upper bounds of the times that answers took, in milliseconds; one more class has what took longer. */
export const answerBoundsMs = [5, 10, 25, 50, 100, 250, 500, 1_000, 2_500, 5_000, 10_000] as const;
const bounds = answerBoundsMs.length;
const width = bounds + 1;

/**
 * What a process has seen of one provider, over all of its connections: plain numbers, which the HTTP/2 client and the provider add to,
 * since most of it is counted for each device. Numbers only grow, but for those of `now`.
 */
export class ProviderTraffic {
  /** As of now: requests on connections; connections that stand. */
  readonly now = { requests: 0, connections: 0 };
  connectionsOpened = 0;
  goaways = 0;
  refusedStreams = 0;
  /** Requests sent again after they were provably not processed. */
  resent = 0;
  /** Connections by how they ended; requests that were never processed, and those without an answer, by cause. */
  readonly closed: Record<string, number> = {};
  readonly notProcessed: Record<string, number> = {};
  readonly unanswered: Record<string, number> = {};
  /** Provider or access tokens: signed or fetched by this process, taken from another, not to be had. */
  readonly tokens = { made: 0, shared: 0, failed: 0 };
  /** By class, then by bound. */
  readonly answers = new Float64Array(answerClasses.length * width);
  /** By class: the sum of all times, in milliseconds. */
  readonly answerMs = new Float64Array(answerClasses.length);

  /** Called for each answer: a few nanoseconds. */
  noteAnswer(status: number, ms: number): void {
    const kind = status === 200 ? 0 : classOf(status);
    let bucket = 0;
    while (bucket < bounds && ms > answerBoundsMs[bucket]!) bucket++;
    this.answers[kind * width + bucket]! += 1;
    this.answerMs[kind]! += ms;
  }
}

export function addOne(counts: Record<string, number>, cause: string): void {
  counts[cause] = (counts[cause] ?? 0) + 1;
}

function classOf(status: number): number {
  if (status === 429) return 2;
  if (status >= 500) return 3;
  return status >= 400 ? 1 : 0;
}
