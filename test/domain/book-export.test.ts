import assert from 'node:assert/strict';
import { test } from 'node:test';
import { readBookExport } from '../../domain/book-export.ts';
import { ConfigError, type Environment, readSettings } from '../../domain/settings.ts';

const read = (env: Environment) =>
  readSettings(
    Object.fromEntries(Object.entries(env).map(([name, value]) => [`CARILLON_EXPORT_S3_${name}`, value])),
    readBookExport,
  );

test('without a bucket nothing is uploaded', () => {
  assert.equal(read({}), undefined);
  assert.equal(read({ ENDPOINT: 'http://store:9000', PREFIX: 'x' }), undefined);
});

test("Amazon's store is taken with the SDK's own region and the bucket in the host's name, any other as such stores want it", () => {
  const usual = { bucket: 'books', prefix: '', since: undefined };
  assert.deepEqual(read({ BUCKET: 'books' }), {
    ...usual,
    ...{ endpoint: undefined, region: undefined, isPathStyle: false },
  });
  assert.deepEqual(read({ BUCKET: 'books', ENDPOINT: 'http://store:9000' }), {
    ...usual,
    ...{ endpoint: 'http://store:9000', region: 'us-east-1', isPathStyle: true },
  });
  const named = read({ BUCKET: 'books', ENDPOINT: 'https://store', REGION: 'eu-1', FORCE_PATH_STYLE: 'false' });
  assert.deepEqual([named!.region, named!.isPathStyle], ['eu-1', false]);
});

test('a prefix ends with one slash, a day begins at midnight UTC', () => {
  for (const prefix of ['a/b', 'a/b/', 'a/b//']) assert.equal(read({ BUCKET: 'x', PREFIX: prefix })!.prefix, 'a/b/');
  assert.deepEqual(read({ BUCKET: 'x', SINCE: '2026-01-31' })!.since, new Date('2026-01-31T00:00:00Z'));
});

test('what is wrong is named', () => {
  for (const [name, value] of [
    ['ENDPOINT', 'store:9000'],
    ['ENDPOINT', 'store'],
    ['FORCE_PATH_STYLE', 'yes'],
    ['SINCE', '2026-13-01'],
    ['SINCE', 'today'],
    ['SINCE', '2026-1-1'],
  ] as const) {
    assert.throws(
      () => read({ BUCKET: 'books', [name]: value }),
      (error) => error instanceof ConfigError && error.message.includes(`CARILLON_EXPORT_S3_${name} must be`),
      `${name}=${value}`,
    );
  }
});
