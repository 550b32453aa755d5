/**
 * The end of a switch over a closed set (states, verdicts, outcomes, providers): a member without a case does not compile.
 * @throws {TypeError} for a value from outside that the types do not know, such as a state stored by a newer version
 */
export function exhausted(value: never): never {
  throw new TypeError(`There is no case for ${JSON.stringify(value)}.`);
}
