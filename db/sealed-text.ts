import { CompactEncrypt, compactDecrypt } from 'jose';

/** Why a sealed text stays closed, for people: no text, no key. */
export class SealedTextError extends Error {
  readonly code = 'sealed_text_unreadable';

  constructor(message: string) {
    super(message);
    this.name = 'SealedTextError';
  }
}

const encoder = new TextEncoder();
const decoder = new TextDecoder();

/**
 * A compact JWE (RFC 7516) with `dir` and `A256GCM`.
 * @param key 32 bytes
 * @param context what the text belongs to. Part of what is authenticated, so that a text copied elsewhere does not open there.
 */
export async function sealText(text: string, key: Uint8Array, context: string, keyId?: string): Promise<string> {
  return await new CompactEncrypt(encoder.encode(text))
    .setProtectedHeader({ alg: 'dir', enc: 'A256GCM', ctx: context, ...(keyId !== undefined && { kid: keyId }) })
    .encrypt(key);
}

/** @throws {SealedTextError} */
export async function openText(sealed: string, key: Uint8Array, context: string): Promise<string> {
  try {
    const { plaintext, protectedHeader } = await compactDecrypt(sealed, key, {
      keyManagementAlgorithms: ['dir'],
      contentEncryptionAlgorithms: ['A256GCM'],
    });
    if (protectedHeader.ctx === context) return decoder.decode(plaintext);
  } catch {
    // The library's word says nothing more.
  }
  throw new SealedTextError('It was changed, or sealed by another key, or copied from elsewhere.');
}
