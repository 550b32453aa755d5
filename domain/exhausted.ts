/** Ends a switch over a closed set of values: with one that no case handles it does not compile, and does not act. */
export function exhausted(value: never): never {
  throw new TypeError(`not handled: ${String(value)}`);
}
