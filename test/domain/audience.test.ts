import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { type ConditionScalar, canonicalFieldValue, type DeviceField, deviceFields } from '../../domain/audience.ts';

const equalities = ['eq', 'ne', 'in'] as const;
const orders = ['gt', 'gte', 'lt', 'lte'] as const;
const impossible = undefined;

const longest = '🔔'.repeat(255);
type Form = ConditionScalar | undefined;
/** `equal`: asked for by `eq`, `ne` or `in`; `ordered`: by `gt`, `gte`, `lt` or `lte`. */
type Row = [field: DeviceField, value: ConditionScalar, equal: Form, ordered: Form];
const rows: Row[] = [
  ['platform', 'ios', 'ios', 'ios'],
  ['platform', 'iOS', impossible, impossible],
  ['provider', 'fcm', 'fcm', 'fcm'],
  ['provider', 'sms', impossible, impossible],
  ['apns_environment', 'sandbox', 'sandbox', 'sandbox'],
  ['apns_environment', 'development', impossible, impossible],
  ['locale', 'pt_br', 'pt-BR', 'pt-BR'],
  ['locale', 'no locale', impossible, 'no locale'],
  ['time_zone', 'asia/calcutta', 'Asia/Kolkata', 'Asia/Kolkata'],
  ['time_zone', 'Asia/', impossible, 'Asia/'],
  ['bucket', 1, 1, 1],
  ['bucket', 10_000, 10_000, 10_000],
  ['bucket', 0, impossible, 0],
  ['bucket', 10_001, impossible, 10_001],
  ['bucket', 2.5, impossible, 2.5],
  ['bucket', '1', impossible, impossible],
  ['registered_at', '2026-06-01T02:00:00+02:00', '2026-06-01T00:00:00.000Z', '2026-06-01T00:00:00.000Z'],
  ['registered_at', '2026-06-01', '2026-06-01T00:00:00.000Z', '2026-06-01T00:00:00.000Z'],
  ['registered_at', '1970-01-01T00:00:00Z', '1970-01-01T00:00:00.000Z', '1970-01-01T00:00:00.000Z'],
  ['registered_at', '1969-12-31T23:59:59.999Z', impossible, impossible],
  ['registered_at', 'yesterday', impossible, impossible],
  ['external_id', longest, longest, longest],
  ['external_id', `${longest}x`, impossible, `${longest}x`],
  ['external_id', '', impossible, ''],
  ['user_id', longest, longest, longest],
  ['user_id', `${longest}x`, impossible, `${longest}x`],
  ['user_id', '', impossible, ''],
];

describe('what a condition asks of a field, in the form in which devices have it', () => {
  for (const [field, value, equal, ordered] of rows) {
    const shown = typeof value === 'string' && value.length > 40 ? `${[...value].length} characters` : value;
    const inWords = (form: Form) => (form === impossible ? 'no device' : form === value ? 'as it is' : form);
    test(`${field} ${JSON.stringify(shown)}: ${inWords(equal)}; by its order: ${inWords(ordered)}`, () => {
      for (const operator of equalities) assert.equal(canonicalFieldValue({ field, operator }, value), equal);
      for (const operator of orders) assert.equal(canonicalFieldValue({ field, operator }, value), ordered);
    });
  }

  test('a form is its own form', () => {
    for (const [field, , form] of rows) {
      if (form !== undefined) assert.equal(canonicalFieldValue({ field, operator: 'eq' }, form), form);
    }
  });

  test('a value of another JSON type is what no device has, whatever the operator', () => {
    for (const field of deviceFields) {
      const others = [true, false, field === 'bucket' ? 'x' : 7];
      for (const operator of [...equalities, ...orders]) {
        for (const value of others) assert.equal(canonicalFieldValue({ field, operator }, value), impossible, field);
      }
    }
  });

  test('every field has a rule here', () => {
    assert.deepEqual([...new Set(rows.map(([field]) => field))].sort(), deviceFields.toSorted());
  });
});
