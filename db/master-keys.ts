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

/** The id of the key that sealed a text; undefined for any other text. */
export function sealedBy(sealed: string): string | undefined {
  try {
    return decodeProtectedHeader(sealed).kid;
  } catch {
    return undefined;
  }
}
