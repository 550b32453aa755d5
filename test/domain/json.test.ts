import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { isJsonObject, type JsonObject, type JsonValue, jsonBytes, mergeOver, utf8Bytes } from '../../domain/json.ts';

/** As it comes from a request: `__proto__` in a text is a key like any other. */
const parsed = (text: string): JsonObject => JSON.parse(text);

describe('an override laid over what was built', () => {
  const rows: [rule: string, base: string, override: string, merged: string][] = [
    ['adds a key', '{"a":1}', '{"b":2}', '{"a":1,"b":2}'],
    ['replaces a value, in its place', '{"a":1,"b":2}', '{"a":3}', '{"a":3,"b":2}'],
    ['takes a key away with null', '{"a":1,"b":2}', '{"a":null}', '{"b":2}'],
    ['… one that is not there too', '{"a":1}', '{"b":null}', '{"a":1}'],
    ['keeps what it does not name', '{"a":{"b":1}}', '{}', '{"a":{"b":1}}'],
    ['merges objects, however deep', '{"a":{"b":{"c":1,"d":2}}}', '{"a":{"b":{"c":3}}}', '{"a":{"b":{"c":3,"d":2}}}'],
    ['… and takes away within them', '{"a":{"b":1,"c":2}}', '{"a":{"b":null}}', '{"a":{"c":2}}'],
    ['… until they are empty', '{"a":{"b":1}}', '{"a":{"b":null}}', '{"a":{}}'],
    ['replaces lists whole', '{"a":[1,2]}', '{"a":[3]}', '{"a":[3]}'],
    ['replaces an object by a list', '{"a":{"b":1}}', '{"a":[]}', '{"a":[]}'],
    ['replaces a list by an object', '{"a":[1]}', '{"a":{"b":1}}', '{"a":{"b":1}}'],
    ['replaces an object by a text', '{"a":{"b":1}}', '{"a":"x"}', '{"a":"x"}'],
    ['replaces null by an object', '{"a":null}', '{"a":{"b":1}}', '{"a":{"b":1}}'],
    ['takes a subtree of its own as it is, nulls included', '{}', '{"a":{"b":null}}', '{"a":{"b":null}}'],
    ['… also where it replaces', '{"a":1}', '{"a":{"b":null}}', '{"a":{"b":null}}'],
    ['keeps nulls in lists', '{"a":1}', '{"a":[null]}', '{"a":[null]}'],
    ['sets __proto__ as a key like any other', '{}', '{"__proto__":{"a":1}}', '{"__proto__":{"a":1}}'],
    ['… as it is, nulls included', '{}', '{"__proto__":{"a":null}}', '{"__proto__":{"a":null}}'],
    ['… merges it', '{"__proto__":{"a":1}}', '{"__proto__":{"b":2}}', '{"__proto__":{"a":1,"b":2}}'],
    ['… and takes it away', '{"__proto__":{"a":1},"b":2}', '{"__proto__":null}', '{"b":2}'],
  ];
  for (const [rule, base, override, merged] of rows) {
    test(`${rule}: ${base} and ${override}`, () => {
      assert.equal(JSON.stringify(mergeOver(parsed(base), parsed(override))), merged);
    });
  }

  test('changes neither of the two, nor what other objects inherit', () => {
    const base = parsed('{"a":{"b":{"c":1}},"__proto__":{"x":1}}');
    const override = parsed('{"a":{"b":{"c":2,"d":null}},"__proto__":{"polluted":true}}');
    const before = JSON.stringify([base, override]);
    const merged = mergeOver(base, override);
    assert.equal(JSON.stringify([base, override]), before);
    assert.equal(Object.getPrototypeOf(merged), Object.prototype);
    assert.equal('polluted' in {}, false);
  });
});

test('bytes are those of UTF-8, not characters', () => {
  for (const [text, bytes] of [
    ['', 0],
    ['abc', 3],
    ['é', 2],
    ['漢', 3],
    ['🔔', 4],
  ] as const) {
    assert.equal(utf8Bytes(text), bytes, text);
    assert.equal(jsonBytes({ a: text }), bytes + '{"a":""}'.length, text);
  }
  assert.equal(jsonBytes('"\n'), 6, 'quotes and escapes count');
});

test('an object is neither null nor a list', () => {
  for (const value of [{}, { a: 1 }, parsed('{"__proto__":1}')]) assert.ok(isJsonObject(value));
  const others: (JsonValue | undefined)[] = [undefined, null, [], [{}], 'x', 0, true];
  for (const value of others) assert.ok(!isJsonObject(value), JSON.stringify(value));
});
