import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { describe, test } from 'node:test';
import { createMasterKeys, sealedBy } from '../../db/master-keys.ts';
import { openText, SealedTextError, sealText } from '../../db/sealed-text.ts';
import { readMasterKeys } from '../../domain/master-keys.ts';
import { ConfigError, readSettings } from '../../domain/settings.ts';

const first = randomBytes(32).toString('base64');
const second = randomBytes(32).toString('base64url');
const read = (text: string) => readSettings({ CARILLON_MASTER_KEYS: text }, readMasterKeys);
const ringOf = (text: string) => createMasterKeys(read(text))!;

describe('the setting of the master keys', () => {
  test('is a list of ids and 32 bytes each, in either kind of base64', () => {
    const keys = read(` 2026-11:${first} , old_1:${second}`);
    assert.deepEqual(
      keys.map(({ id, key }) => [id, Buffer.from(key).toString('base64')]),
      [
        ['2026-11', first],
        ['old_1', Buffer.from(second, 'base64url').toString('base64')],
      ],
    );
  });

  test('may be left out', () => {
    assert.equal(createMasterKeys(read('')), undefined);
  });

  const wrong: Record<string, [string, RegExp]> = {
    'a key without an id': [first, /key 1 is not <id>:<base64 of 32 bytes>/],
    'a key that is too short': [`a:${randomBytes(16).toString('base64')}`, /key 1/],
    'a key that is too long': [`a:${first},b:${randomBytes(48).toString('base64')}`, /key 2/],
    'an id with a blank': [`my key:${first}`, /key 1/],
    'an id of 33 characters': [`${'k'.repeat(33)}:${first}`, /key 1/],
    'a comma at the end': [`a:${first},`, /key 2/],
    'an id that stands twice': [`a:${first},a:${second}`, /key 2 stands before another key/],
  };
  for (const [name, [text, expected]] of Object.entries(wrong)) {
    test(`${name} is refused by its place, and its text is not repeated`, () => {
      assert.throws(
        () => read(text),
        (error) => {
          assert.ok(error instanceof ConfigError);
          assert.match(error.message, /CARILLON_MASTER_KEYS/);
          assert.match(error.message, expected);
          for (const key of [first, second]) assert.ok(!error.message.includes(key.slice(0, 20)));
          return true;
        },
      );
    });
  }
});

describe('a sealed text', () => {
  test('is a compact JWE that names its key, and shows nothing of what it holds', async () => {
    const ring = ringOf(`a:${first}`);
    const sealed = await ring.seal('the secret', 'credential:1');
    assert.equal(sealed.split('.').length, 5);
    assert.equal(sealedBy(sealed), 'a');
    assert.ok(!Buffer.from(sealed.split('.')[3]!, 'base64url').includes('secret'));
    assert.notEqual(await ring.seal('the secret', 'credential:1'), sealed);
  });

  test('is sealed by the first key, and opened by any', async () => {
    const before = ringOf(`a:${first}`);
    const after = ringOf(`b:${second},a:${first}`);
    assert.equal(await after.open(await before.seal('text', 'x'), 'x'), 'text');
    assert.equal(sealedBy(await after.seal('text', 'x')), 'b');
    await assert.rejects(before.open(await after.seal('text', 'x'), 'x'), /master key "b", which is not in CARILLON/);
  });

  test('does not open in another place, when it was changed, or by another key of the same id', async () => {
    const ring = ringOf(`a:${first}`);
    const sealed = await ring.seal('text', 'credential:1');
    const parts = sealed.split('.');
    const changed = [...parts.slice(0, 3), `${parts[3]![0] === 'A' ? 'B' : 'A'}${parts[3]!.slice(1)}`, parts[4]].join(
      '.',
    );
    await assert.rejects(ring.open(sealed, 'credential:2'), SealedTextError);
    await assert.rejects(ring.open(changed, 'credential:1'), SealedTextError);
    await assert.rejects(ringOf(`a:${second}`).open(sealed, 'credential:1'), SealedTextError);
    for (const text of ['', 'no JWE', '....']) await assert.rejects(ring.open(text, 'credential:1'), SealedTextError);
  });

  test('of another algorithm is not opened: the header cannot choose', async () => {
    const { CompactEncrypt } = await import('jose');
    const key = new Uint8Array(Buffer.from(first, 'base64'));
    const wrapped = await new CompactEncrypt(Buffer.from('text'))
      .setProtectedHeader({ alg: 'A256GCMKW', enc: 'A256GCM', ctx: 'x' })
      .encrypt(key);
    await assert.rejects(openText(wrapped, key, 'x'), SealedTextError);
    assert.equal(await openText(await sealText('text', key, 'x'), key, 'x'), 'text');
  });
});
