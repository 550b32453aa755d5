import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import fc from 'fast-check';
import { audienceFilter } from '../../db/audience.ts';
import type { Audience, Condition, ConditionScalar, PropertyCondition } from '../../domain/audience.ts';
import type { JsonValue } from '../../domain/json.ts';
import { createTestDatabase, type TestDatabase } from '../support/database.ts';

type Properties = Record<string, JsonValue>;

const devices: Record<string, Properties> = {
  empty: {},
  six: { n: 6, s: '6', b: true, list: ['x', 1, true] },
  five: { n: 5.5, s: 'x', b: false, list: [] },
  text: { n: '7', s: 'Ä', list: 'x' },
  dates: { s: '2026-05-01T00:00:00Z', n: -1 },
  odd: { "it's": 1, 'a.b': 2, n: [6], s: { deep: 1 } },
};

describe('audience as SQL', () => {
  let database: TestDatabase;
  before(async () => {
    database = await createTestDatabase();
    const { pool } = database;
    await pool.query(
      `insert into devices (app_id, external_id, user_id, provider, platform, device_token, properties, bucket, locale,
          apns_environment, registered_at)
        select 1, r.id, 'user-' || left(r.id, 1), case when r.n % 2 = 0 then 'apns' else 'fcm' end,
          case when r.n % 2 = 0 then 'ios' else 'android' end, 'token-' || r.id, r.properties, r.n * 100 + 1,
          case when r.n < 3 then 'de-DE' end, case when r.n = 0 then 'sandbox' end,
          timestamptz '2026-01-01T00:00:00Z' + make_interval(days => r.n::integer)
        from (select key as id, value as properties, ordinality - 1 as n
          from jsonb_each($1::jsonb) with ordinality order by ordinality) r`,
      [JSON.stringify(devices)],
    );
    await pool.query(
      `insert into apps (name) values ('other');
       insert into devices (app_id, external_id, provider, platform, device_token)
         select id, 'elsewhere', 'fcm', 'web', 'other-app' from apps where name = 'other';
       insert into devices (app_id, external_id, provider, platform, device_token, retired_at, retired_reason)
         values (1, 'retired', 'fcm', 'web', 'gone', now(), 'UNREGISTERED');
       insert into devices (app_id, external_id, provider, platform) values (1, 'no-token', 'fcm', 'web')`,
    );
  });
  after(() => database.close());

  async function reached(audience: Audience): Promise<string[]> {
    const rows = await database.db
      .selectFrom('devices')
      .select('external_id')
      .where(audienceFilter(1, audience))
      .execute();
    return rows.map((row) => row.external_id).sort();
  }
  const having = (condition: Condition) => reached({ condition });
  const property = (name: string, operator: PropertyCondition['operator'], value: PropertyCondition['value']) =>
    having({ property: name, operator, value });
  const all = Object.keys(devices).sort();

  test('an empty audience is every live device of the app, and of no other', async () => {
    assert.deepEqual(await reached({}), all);
  });

  test('ids and users narrow it, an empty list reaches no device', async () => {
    assert.deepEqual(await reached({ externalIds: ['six', 'retired', 'no-token', 'elsewhere', 'nobody'] }), ['six']);
    assert.deepEqual(await reached({ userIds: ['user-d', 'user-f'] }), ['dates', 'five']);
    assert.deepEqual(await reached({ userIds: ['user-d'], externalIds: ['five'] }), []);
    assert.deepEqual(await reached({ externalIds: [] }), []);
  });

  test('comparisons hold only between values of one type', async () => {
    assert.deepEqual(await property('n', 'gt', 5), ['five', 'six']);
    assert.deepEqual(await property('n', 'gte', 6), ['six']);
    assert.deepEqual(await property('n', 'lt', 0), ['dates']);
    assert.deepEqual(await property('n', 'lte', '9'), ['text']);
    assert.deepEqual(await property('n', 'eq', '7'), ['text']);
    assert.deepEqual(await property('n', 'eq', 6.0), ['six']);
    assert.deepEqual(await property('s', 'gte', '2026-04-30'), ['dates', 'five', 'six', 'text']);
    assert.deepEqual(await property('s', 'gt', 'z'), ['text'], 'texts by their bytes, in every installation');
    assert.deepEqual(await property('b', 'eq', false), ['five']);
  });

  test('missing properties: ne holds, not holds, exists says so', async () => {
    assert.deepEqual(await property('b', 'ne', true), ['dates', 'empty', 'five', 'odd', 'text']);
    assert.deepEqual(await having({ not: { property: 'b', operator: 'eq', value: true } }), [
      'dates',
      'empty',
      'five',
      'odd',
      'text',
    ]);
    assert.deepEqual(await having({ not: { property: 'n', operator: 'gt', value: 5 } }), [
      'dates',
      'empty',
      'odd',
      'text',
    ]);
    assert.deepEqual(await property('b', 'exists', true), ['five', 'six']);
    assert.deepEqual(await property('n', 'exists', false), ['empty']);
  });

  test('lists: contains looks into the property, in into the value', async () => {
    assert.deepEqual(await property('list', 'contains', 'x'), ['six'], 'a text is no list');
    assert.deepEqual(await property('list', 'contains', 1), ['six']);
    assert.deepEqual(await property('list', 'contains', '1'), []);
    assert.deepEqual(await property('n', 'in', [6, '7', true]), ['six', 'text']);
    assert.deepEqual(
      await property(
        'n',
        'in',
        Array.from({ length: 70_000 }, (_, i) => i),
      ),
      ['six'],
    );
  });

  test('device fields compare by their own type', async () => {
    const field = (name: string, operator: string, value: unknown) =>
      having({ field: name, operator, value } as Condition);
    assert.deepEqual((await field('bucket', 'gte', 401)).length, 2);
    assert.deepEqual((await field('bucket', 'in', [1, 101])).length, 2);
    assert.deepEqual((await field('bucket', 'lt', 101.5)).length, 2);
    assert.deepEqual((await field('platform', 'eq', 'ios')).length, 3);
    assert.deepEqual((await field('platform', 'ne', 'ios')).length, 3);
    assert.deepEqual((await field('locale', 'exists', false)).length, 3);
    assert.deepEqual((await field('locale', 'ne', 'de-DE')).length, 3);
    assert.deepEqual((await field('apns_environment', 'eq', 'sandbox')).length, 1);
    assert.deepEqual((await field('registered_at', 'lt', '2026-01-02T01:00:00+02:00')).length, 1);
    assert.deepEqual(await field('external_id', 'in', ['six', 'x']), ['six']);
    assert.deepEqual(await field('user_id', 'eq', 'user-s'), ['six']);
  });

  test('names and values are never SQL', async () => {
    const attacks = ["'; drop table devices; --", '$1', '\\', "it's", 'a.b', '?', '{}', '"', '%'];
    for (const attack of attacks) {
      for (const operator of ['eq', 'ne', 'gt', 'contains'] as const) await property(attack, operator, attack);
      await property(attack, 'in', attacks);
      await property(attack, 'exists', true);
      await reached({ externalIds: [attack], userIds: [attack] });
    }
    assert.deepEqual(await property("it's", 'eq', 1), ['odd']);
    assert.deepEqual(await property('a.b', 'exists', true), ['odd']);
    assert.deepEqual(await reached({}), all);
  });

  test('any condition means in SQL what it means in words', async () => {
    const scalar: fc.Arbitrary<ConditionScalar> = fc.constantFrom<ConditionScalar>(
      6,
      5.5,
      -1,
      '6',
      'x',
      'Ä',
      '7',
      true,
      false,
      1,
    );
    const name = fc.constantFrom('n', 's', 'b', 'list', 'none');
    const leaf: fc.Arbitrary<Condition> = fc.oneof(
      fc.record({ property: name, operator: fc.constantFrom('eq', 'ne', 'contains' as const), value: scalar }),
      fc.record({ property: name, operator: fc.constantFrom('gt', 'gte', 'lt', 'lte' as const), value: scalar }),
      fc.record({
        property: name,
        operator: fc.constant('in' as const),
        value: fc.array(scalar, { minLength: 1, maxLength: 3 }),
      }),
      fc.record({ property: name, operator: fc.constant('exists' as const), value: fc.boolean() }),
    );
    const { condition } = fc.letrec<{ condition: Condition }>((tie) => ({
      condition: fc.oneof(
        { depthSize: 'small', withCrossShrink: true },
        leaf,
        fc.record({ and: fc.array(tie('condition'), { maxLength: 3 }) }),
        fc.record({ or: fc.array(tie('condition'), { maxLength: 3 }) }),
        fc.record({ not: tie('condition') }),
      ),
    }));
    await fc.assert(
      fc.asyncProperty(condition, async (any) => {
        const expected = all.filter((id) => holds(any, devices[id]!));
        assert.deepEqual(await having(any), expected);
      }),
      { numRuns: 300 },
    );
  });
});

/** The meaning of a condition, as `domain/audience.ts` says it. */
function holds(condition: Condition, properties: Properties): boolean {
  if ('and' in condition) return condition.and.every((part) => holds(part, properties));
  if ('or' in condition) return condition.or.some((part) => holds(part, properties));
  if ('not' in condition) return !holds(condition.not, properties);
  if (!('property' in condition)) throw new Error('not used here');
  const { operator, value } = condition;
  const stored = properties[condition.property];
  if (operator === 'exists') return (stored !== undefined) === value;
  if (operator === 'ne') return stored !== value;
  if (operator === 'eq') return stored === value;
  if (operator === 'in') return (value as JsonValue[]).includes(stored ?? null);
  if (operator === 'contains') return Array.isArray(stored) && stored.includes(value as JsonValue);
  if (typeof stored !== typeof value || stored === undefined) return false;
  const [a, b] = typeof stored === 'string' ? [Buffer.from(stored), Buffer.from(value as string)] : [stored, value];
  const order = Buffer.isBuffer(a) && Buffer.isBuffer(b) ? Buffer.compare(a, b) : Number(a) - Number(b);
  return { gt: order > 0, gte: order >= 0, lt: order < 0, lte: order <= 0 }[operator];
}
