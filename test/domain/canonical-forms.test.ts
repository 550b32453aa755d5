import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { canonicalLocale } from '../../domain/locale.ts';
import { canonicalTimeZone } from '../../domain/time-zone.ts';

describe('a time zone', () => {
  test('of this runtime has one name, whatever the runtime calls it', () => {
    for (const name of Intl.supportedValuesOf('timeZone')) {
      const canonical = canonicalTimeZone(name);
      assert.ok(canonical, name);
      assert.equal(canonicalTimeZone(canonical), canonical);
      assert.equal(canonicalTimeZone(name.toUpperCase()), canonical);
    }
  });

  test('has all its names, and keeps its offset under each', () => {
    const offsetOf = (name: string) =>
      new Intl.DateTimeFormat('en', { timeZone: name, dateStyle: 'short', timeStyle: 'long' }).format(0);
    for (const [name, canonical] of [
      ['Asia/Saigon', 'Asia/Ho_Chi_Minh'],
      ['America/Buenos_Aires', 'America/Argentina/Buenos_Aires'],
      ['Asia/Rangoon', 'Asia/Yangon'],
      ['Etc/Zulu', 'UTC'],
      ['US/Pacific', 'America/Los_Angeles'],
      ['W-SU', 'Europe/Moscow'],
      ['Etc/GMT+5', 'Etc/GMT+5'],
    ] as const) {
      assert.equal(canonicalTimeZone(name), canonical);
      assert.equal(offsetOf(name).replace(/ [^ ]*$/, ''), offsetOf(canonical).replace(/ [^ ]*$/, ''));
    }
  });

  test('is no offset, no abbreviation and no other text', () => {
    for (const text of [
      '',
      '+02:00',
      'UTC+2',
      'IST',
      'PST',
      'Europe',
      'Europe/',
      'Mars/Olympus',
      '__proto__',
      'x'.repeat(255),
    ]) {
      assert.equal(canonicalTimeZone(text), undefined, text);
    }
  });
});

describe('a language tag', () => {
  test('has one form, with hyphens and the usual capitals', () => {
    for (const [text, form] of [
      ['de', 'de'],
      ['PT_br', 'pt-BR'],
      ['zh_HANT_tw', 'zh-Hant-TW'],
      ['es_419', 'es-419'],
      ['in_ID', 'id-ID'],
      ['ca-es-valencia', 'ca-ES-valencia'],
      ['de-CH-1996', 'de-CH-1996'],
      ['en-x-IOS', 'en-x-ios'],
    ] as const) {
      assert.equal(canonicalLocale(text), form);
      assert.equal(canonicalLocale(form), form);
    }
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
      'english',
    ]) {
      assert.equal(canonicalLocale(text), undefined, text);
    }
  });
});
