/** A preference of RFC 7240, section 2: `name`, or `name=value`, with parameters that none of ours has. */
const preference =
  /[\s,]*(?<name>[!#$%&'*+.^_`|~\w-]+)(?:\s*=\s*(?:"(?<quoted>(?:[^"\\]|\\.)*)"|(?<value>[^\s,;"]*)))?(?:\s*;(?:[^,"]|"(?:[^"\\]|\\.)*")*)?\s*(?=,|$)/y;

/**
 * The value of a preference in a `Prefer` header; the first counts where it is given twice. Undefined where it is not there: a header
 * that cannot be read is one that says nothing.
 */
function preferred(header: string, wanted: string): string | undefined {
  preference.lastIndex = 0;
  for (;;) {
    const groups = preference.exec(header)?.groups;
    if (!groups) return undefined;
    const { name, quoted, value = '' } = groups;
    if (name!.toLowerCase() === wanted) return quoted?.replaceAll(/\\(.)/g, '$1') ?? value;
  }
}

/** The seconds of `Prefer: wait=…` (RFC 7240, section 4.3), at most `max`; undefined where none are asked for in whole seconds. */
export function preferredWait(header: string | undefined, max: number): number | undefined {
  const text = preferred(header ?? '', 'wait');
  return text !== undefined && /^\d+$/.test(text) ? Math.min(Number(text), max) : undefined;
}
