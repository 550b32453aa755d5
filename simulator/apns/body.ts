/** The same payload goes to a whole batch, so a body that was read is kept and found again by equality. */

export interface ApnsBody {
  /** The same buffer for all requests that carried the same bytes. */
  bytes: Buffer;
  isJsonObject: boolean;
  /** The custom key `nid`; undefined when absent. */
  notificationId: string | undefined;
}

const bodiesKept = 16;

export class ApnsBodies {
  /** The most recently used first. */
  readonly #kept: ApnsBody[] = [];

  read(bytes: Buffer): ApnsBody {
    const kept = this.#kept;
    for (let i = 0; i < kept.length; i++) {
      const body = kept[i]!;
      if (body.bytes.length !== bytes.length || !body.bytes.equals(bytes)) continue;
      if (i > 0) {
        kept.splice(i, 1);
        kept.unshift(body);
      }
      return body;
    }
    const body = parseBody(bytes);
    kept.unshift(body);
    if (kept.length > bodiesKept) kept.pop();
    return body;
  }
}

const decoder = new TextDecoder('utf-8', { fatal: true });

function parseBody(bytes: Buffer): ApnsBody {
  let value: unknown;
  try {
    value = JSON.parse(decoder.decode(bytes));
  } catch {
    // The body is neither UTF-8 nor JSON: the caller refuses it.
  }
  const isJsonObject = typeof value === 'object' && value !== null && !Array.isArray(value);
  const nid = isJsonObject ? (value as { nid?: unknown }).nid : undefined;
  return { bytes, isJsonObject, notificationId: typeof nid === 'string' ? nid : undefined };
}
