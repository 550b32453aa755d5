/** Deterministic random numbers: the same seed gives the same simulator, and a device's behaviour follows from its number alone. */

/** A stream of numbers in [0, 1) that depends only on the seed (mulberry32). */
export function createRandom(seed: number): () => number {
  let state = seed >>> 0;
  return () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let t = Math.imul(state ^ (state >>> 15), state | 1);
    t ^= t + Math.imul(t ^ (t >>> 7), t | 61);
    return ((t ^ (t >>> 14)) >>> 0) / 4_294_967_296;
  };
}

/** A well-mixed 32-bit unsigned number out of a device number (up to 2^53) and a seed. */
export function mix32(n: number, seed = 0): number {
  let h =
    (n >>> 0) ^ Math.imul(Math.floor(n / 4_294_967_296) + 0x9e3779b9, 0x85ebca6b) ^ Math.imul(seed + 1, 0x27d4eb2f);
  h = Math.imul(h ^ (h >>> 16), 0x85ebca6b);
  h = Math.imul(h ^ (h >>> 13), 0xc2b2ae35);
  return (h ^ (h >>> 16)) >>> 0;
}

/** A 32-bit unsigned hash of a text, for choosing a fixed percentage of device tokens. */
export function hashText(text: string, seed = 0): number {
  let h = Math.imul(seed + 1, 0x9e3779b1);
  for (let i = 0; i < text.length; i++) h = Math.imul(h ^ text.charCodeAt(i), 0x01000193);
  h = Math.imul(h ^ (h >>> 15), 0x2c1b3c6d);
  return (h ^ (h >>> 13)) >>> 0;
}
