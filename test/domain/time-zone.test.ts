import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
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

  test('stays the zone of its country where others link it to that of a neighbour', () => {
    for (const name of ['Europe/Oslo', 'Europe/Berlin', 'Africa/Maputo', 'Africa/Lusaka', 'Atlantic/Reykjavik']) {
      assert.equal(canonicalTimeZone(name), name);
    }
  });

  test('is found in any case, also when it is asked for again', () => {
    for (const name of ['europe/vienna', 'EUROPE/VIENNA', 'Europe/Vienna', 'europe/vienna']) {
      assert.equal(canonicalTimeZone(name), 'Europe/Vienna');
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
