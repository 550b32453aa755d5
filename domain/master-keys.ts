import type { Settings } from './settings.ts';

/** Seals what must not be read in the database. */
export interface MasterKey {
  /** 1 to 32 letters, digits, `-`, `_`; stands in what it sealed. */
  id: string;
  /** 32 bytes. */
  key: Uint8Array;
}

const form = /^([A-Za-z0-9_-]{1,32}):([A-Za-z0-9+/_-]{43})=?$/;

/**
 * `CARILLON_MASTER_KEYS`: comma-separated, each `<id>:<base64 of 32 bytes>`. The first seals, all open. Unset: none, and nothing
 * secret is stored. A problem names a key by its place, for the text may be the key itself.
 */
export function readMasterKeys(settings: Settings): MasterKey[] {
  const name = 'CARILLON_MASTER_KEYS';
  const keys: MasterKey[] = [];
  for (const [i, text] of settings.text(name)?.split(',').entries() ?? []) {
    const [, id, base64] = form.exec(text.trim()) ?? [];
    if (id === undefined || base64 === undefined) {
      settings.problems.push(`${name}: key ${i + 1} is not <id>:<base64 of 32 bytes>`);
    } else if (keys.some((key) => key.id === id)) {
      settings.problems.push(`${name}: the id of key ${i + 1} stands before another key already`);
    } else keys.push({ id, key: bytesOf(base64) });
  }
  return keys;
}

function bytesOf(base64: string): Uint8Array {
  const binary = atob(base64.replaceAll('-', '+').replaceAll('_', '/'));
  return Uint8Array.from(binary, (character) => character.charCodeAt(0));
}
