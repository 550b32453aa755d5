import { randomBytes } from 'node:crypto';
import { decodeProtectedHeader } from 'jose';
import type { MasterKey } from '../domain/master-keys.ts';
import { openText, SealedTextError, sealText } from './sealed-text.ts';

/** The keys of `CARILLON_MASTER_KEYS`. */
export class MasterKeys {
  readonly #keys: ReadonlyMap<string, Uint8Array>;
  readonly #first: MasterKey;

  constructor(first: MasterKey, others: readonly MasterKey[] = []) {
    this.#first = first;
    this.#keys = new Map([first, ...others].map(({ id, key }) => [id, key]));
  }

  /** Of the key that seals. */
  get currentId(): string {
    return this.#first.id;
  }

  /** Of all keys, that one first. */
  get ids(): string[] {
    return [...this.#keys.keys()];
  }

  seal(text: string, context: string): Promise<string> {
    return sealText(text, this.#first.key, context, this.#first.id);
  }

  /** @throws {SealedTextError} */
  async open(sealed: string, context: string): Promise<string> {
    const id = sealedBy(sealed);
    const key = this.#keys.get(id ?? '');
    if (key !== undefined) return await openText(sealed, key, context);
    throw new SealedTextError(`It was sealed by master key "${id}", which is not in CARILLON_MASTER_KEYS.`);
  }
}

/** Undefined: there are none, so nothing secret is stored. */
export function createMasterKeys([first, ...others]: readonly MasterKey[]): MasterKeys | undefined {
  return first && new MasterKeys(first, others);
}

/** A new key, as `CARILLON_MASTER_KEYS` takes it. Its id begins with the day. */
export function generateMasterKey(): { id: string; key: string } {
  const id = `${new Date().toISOString().slice(0, 10)}-${randomBytes(3).toString('hex')}`;
  return { id, key: `${id}:${randomBytes(32).toString('base64')}` };
}

/** The id of the key that sealed a text; undefined for any other text. */
export function sealedBy(sealed: string): string | undefined {
  try {
    return decodeProtectedHeader(sealed).kid;
  } catch {
    return undefined;
  }
}
