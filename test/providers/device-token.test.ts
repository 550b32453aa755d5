import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import type { ProviderName } from '../../domain/device.ts';
import { providers } from '../../providers/registry.ts';

const hex = 'abcdef0123456789'.repeat(4);

function accepted(provider: ProviderName, text: string): string {
  const result = providers[provider].normaliseDeviceToken(text);
  assert.ok(result.ok, result.ok ? '' : result.message);
  return result.deviceToken;
}

function refused(provider: ProviderName, text: string): string {
  const result = providers[provider].normaliseDeviceToken(text);
  assert.ok(!result.ok);
  assert.ok(text === '' || text.length < 20 || !result.message.includes(text.slice(0, 20)));
  return result.message;
}

describe('writing variants of one APNs token are one token', () => {
  const variants = {
    'lower case': hex,
    'upper case': hex.toUpperCase(),
    'angle brackets and blanks': `<${hex.replace(/(.{8})(?=.)/g, '$1 ')}>`,
    'a line end': `${hex}\r\n`,
    'tabs and no-break blanks': `\t${hex.slice(0, 30)}\u00a0${hex.slice(30)}`,
  };
  for (const [name, text] of Object.entries(variants)) {
    test(name, () => assert.equal(accepted('apns', text), hex));
  }
});

describe('an APNs token may have any even length', () => {
  for (const length of [64, 108, 160, 400, 1024]) {
    test(`${length} digits`, () => assert.equal(accepted('apns', 'ab'.repeat(length / 2)).length, length));
  }
  for (const [name, text, expected] of [
    ['three digits', 'abc', /even/],
    ['an odd length', `${hex}a`, /even.* 65/],
    ['a short token', 'abcd', /64 to 1024/],
    ['a token longer than any', 'ab'.repeat(513), /64 to 1024/],
    ['other characters', `${hex.slice(0, 62)}zz`, /hexadecimal/],
    ['digits with a NUL', `${hex}\0`, /hexadecimal/],
    ['nothing', '<>', /empty/],
  ] as const) {
    test(`refused: ${name}`, () => assert.match(refused('apns', text), expected));
  }
});

describe('an FCM token is trimmed at its ends and otherwise left alone', () => {
  const token = 'dQw4w9WgXcQ:APA91bH-AbC_xyz';
  test('case is kept', () => assert.equal(accepted('fcm', token), token));
  test('blanks and line ends around it are cut', () => assert.equal(accepted('fcm', ` \t${token}\n`), token));
  test('2048 bytes are taken', () => assert.equal(accepted('fcm', 'x'.repeat(2048)).length, 2048));
  for (const [name, text, expected] of [
    ['a blank inside', 'abc def', /blanks/],
    ['a no-break blank inside', 'abc\u00a0def', /blanks/],
    ['a line end inside', 'abc\ndef', /line breaks/],
    ['a NUL', 'abc\0def', /control/],
    ['an invisible character', 'abc\u200bdef', /control/],
    ['a lone surrogate', 'abc\ud800', /control/],
    ['2049 bytes', 'x'.repeat(2049), /2048.*2049/],
    ['few characters of many bytes', 'é'.repeat(1025), /2048.*2050/],
    ['nothing', ' \n', /empty/],
  ] as const) {
    test(`refused: ${name}`, () => assert.match(refused('fcm', text), expected));
  }
});
