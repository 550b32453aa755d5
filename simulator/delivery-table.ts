/**
 * Counts per (notification, device token) pair in about 21 bytes a pair: an open-addressing hash table of 64-bit hashes over
 * typed arrays. It is cut into segments that grow one at a time, so that no growth stops the simulator for more than a few
 * milliseconds. At ten million pairs, two different pairs share an entry with a chance of 3 in a million; counters stop at 255.
 */
const segmentCount = 256;
const firstCapacity = 64;
const maxLoad = 0.75;

interface Segment {
  capacity: number;
  used: number;
  high: Uint32Array;
  low: Uint32Array;
  /** 0 marks a free slot. */
  received: Uint8Array;
  accepted: Uint8Array;
}

export class DeliveryTable {
  #segments: Segment[] = emptySegments();

  /** Pairs held. */
  get size(): number {
    return this.#segments.reduce((sum, segment) => sum + segment.used, 0);
  }

  clear(): void {
    this.#segments = emptySegments();
  }

  /** Counts one more request; returns how many had been received before. */
  receive(high: number, low: number): number {
    const segment = this.#segments[high >>> 24]!;
    let slot = findSlot(segment, high, low);
    const before = segment.received[slot]!;
    if (before === 0) {
      if (segment.used >= segment.capacity * maxLoad) {
        grow(segment);
        slot = findSlot(segment, high, low);
      }
      segment.high[slot] = high;
      segment.low[slot] = low;
      segment.used++;
    }
    if (before < 255) segment.received[slot] = before + 1;
    return before;
  }

  /** Counts one more acceptance of a received pair; returns how many there were before. */
  accept(high: number, low: number): number {
    const segment = this.#segments[high >>> 24]!;
    const slot = findSlot(segment, high, low);
    if (segment.received[slot] === 0) return 0;
    const before = segment.accepted[slot]!;
    if (before < 255) segment.accepted[slot] = before + 1;
    return before;
  }

  read(high: number, low: number): { received: number; accepted: number } {
    const segment = this.#segments[high >>> 24]!;
    const slot = findSlot(segment, high, low);
    return { received: segment.received[slot]!, accepted: segment.accepted[slot]! };
  }
}

function emptySegments(): Segment[] {
  return Array.from({ length: segmentCount }, () => createSegment(firstCapacity));
}

function createSegment(capacity: number): Segment {
  return {
    capacity,
    used: 0,
    high: new Uint32Array(capacity),
    low: new Uint32Array(capacity),
    received: new Uint8Array(capacity),
    accepted: new Uint8Array(capacity),
  };
}

/** The pair's slot, or the free slot where it belongs. */
function findSlot(segment: Segment, high: number, low: number): number {
  const mask = segment.capacity - 1;
  for (let slot = low & mask; ; slot = (slot + 1) & mask) {
    if (segment.received[slot] === 0) return slot;
    if (segment.low[slot] === low && segment.high[slot] === high) return slot;
  }
}

function grow(segment: Segment): void {
  const bigger = createSegment(segment.capacity * 2);
  for (let from = 0; from < segment.capacity; from++) {
    if (segment.received[from] === 0) continue;
    const to = findSlot(bigger, segment.high[from]!, segment.low[from]!);
    bigger.high[to] = segment.high[from]!;
    bigger.low[to] = segment.low[from]!;
    bigger.received[to] = segment.received[from]!;
    bigger.accepted[to] = segment.accepted[from]!;
  }
  bigger.used = segment.used;
  Object.assign(segment, bigger);
}
