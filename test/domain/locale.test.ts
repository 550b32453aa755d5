import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { canonicalLocale } from '../../domain/locale.ts';

describe('a language tag', () => {
  test('has one form, with hyphens and the usual capitals', () => {
    for (const [text, form] of [
      ['de', 'de'],
      ['DE', 'de'],
      ['PT_br', 'pt-BR'],
      ['zh_HANT_tw', 'zh-Hant-TW'],
      ['zh-CMN-hans-cn', 'zh-cmn-Hans-CN'],
      ['es_419', 'es-419'],
      ['ca-es-valencia', 'ca-ES-valencia'],
      ['de-CH-1996', 'de-CH-1996'],
      ['fil-ph', 'fil-PH'],
      ['en-x-IOS', 'en-x-ios'],
      ['ar-eg-U-NU-LATN', 'ar-EG-u-nu-latn'],
    ] as const) {
      assert.equal(canonicalLocale(text), form);
      assert.equal(canonicalLocale(form), form);
    }
  });

  test('has the name of today where old phones say another', () => {
    for (const [text, form] of [
      ['iw', 'he'],
      ['iw_IL', 'he-IL'],
      ['in_ID', 'id-ID'],
      ['ji', 'yi'],
      ['jw', 'jv'],
      ['mo_MD', 'ro-MD'],
      ['de-IN', 'de-IN'],
    ] as const) {
      assert.equal(canonicalLocale(text), form);
      assert.equal(canonicalLocale(form), form);
    }
  });

  test('need not be one that this runtime knows', () => {
    assert.equal(canonicalLocale('qqq_zz'), 'qqq-ZZ');
  });

  test('is no other text', () => {
    for (const text of [
      '',
      'd',
      'not a locale',
      'en_US@calendar=buddhist',
      'en_US.UTF-8',
      '123',
      'de--DE',
      'de-',
      'de-DE-AT',
      'de-DE-Latn',
      'english',
      'x-private',
      'i-klingon',
      '__proto__',
    ]) {
      assert.equal(canonicalLocale(text), undefined, text);
    }
  });

  test('has at most 35 characters', () => {
    const tag = 'en-x-12345678-12345678-12345678-abc';
    assert.equal(tag.length, 35);
    assert.equal(canonicalLocale(tag), tag);
    assert.equal(canonicalLocale(`${tag}d`), undefined);
  });
});
