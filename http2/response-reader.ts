/** Judges one decoded header list as an HTTP response (RFC 9113 §8.1 to §8.3). One reader serves a whole connection. */
import type { HeaderSink } from './hpack.ts';

export class ResponseReader implements HeaderSink {
  /** 0: the list had no usable `:status`. */
  status = 0;
  isMalformed = false;
  /** name, value, name, value, … without `:status`. A new array for every list. */
  fields: string[] = [];

  reset(): void {
    this.status = 0;
    this.isMalformed = false;
    this.fields = [];
  }

  header(name: string, value: string): void {
    if (name === ':status' && this.status === 0 && this.fields.length === 0) {
      this.status = parseStatus(value);
      if (this.status === 0) this.isMalformed = true;
      return;
    }
    if (!isFieldName(name)) this.isMalformed = true;
    this.fields.push(name, value);
  }
}

function parseStatus(value: string): number {
  const status = Number(value);
  return value.length === 3 && Number.isInteger(status) && status >= 100 ? status : 0;
}

/** No upper case, no further pseudo-header field, nothing unprintable (RFC 9113 §8.2.1). */
function isFieldName(name: string): boolean {
  if (name.length === 0) return false;
  for (let i = 0; i < name.length; i++) {
    const code = name.charCodeAt(i);
    if (code <= 0x20 || code >= 0x7f || code === 0x3a || (code >= 0x41 && code <= 0x5a)) return false;
  }
  return true;
}
