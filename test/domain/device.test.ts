import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { byProvider, platforms, providerNames, usualProvider } from '../../domain/device.ts';
import { providers } from '../../providers/registry.ts';

describe('the usual provider of a platform', () => {
  for (const platform of platforms) {
    test(`reaches it: ${usualProvider[platform]} reaches ${platform}`, () => {
      assert.ok(providers[usualProvider[platform]].platforms.includes(platform));
    });
  }
});

test('one value for each provider is made once for each, in their order', () => {
  const made: string[] = [];
  const values = byProvider((name) => made.push(name));
  assert.deepEqual(made, providerNames);
  assert.deepEqual(Object.keys(values), providerNames);
  assert.deepEqual(
    Object.values(values),
    providerNames.map((_, i) => i + 1),
  );
});
