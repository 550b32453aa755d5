import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { databaseFault, isRefusedByDatabase, isTransientDatabaseError } from '../../db/database-error.ts';

const withCode = (code: string) => Object.assign(new Error('said by the server'), { code });

describe('an error of the database means one thing', () => {
  for (const [fault, codes] of Object.entries({
    away: [
      ...['08006', '25006', '53100', '53300', '57P01', '57P03'],
      ...['ECONNREFUSED', 'ECONNRESET', 'EPIPE', 'ENOTFOUND', 'EHOSTUNREACH', 'ENETUNREACH'],
    ],
    conflict: ['40001', '40P01'],
    cancelled: ['57014'],
    misconfigured: ['28000', '28P01', '3D000'],
    unstorable: ['22003', '22P05', '54000'],
    forbidden: ['23503', '23514', 'P0001', '42501'],
    other: ['42P01', '42601', 'XX000', 'fenced'],
  })) {
    test(`${fault}: ${codes.join(', ')}`, () => {
      for (const code of codes) assert.equal(databaseFault(withCode(code)), fault, code);
    });
  }

  test('away: what pg says without a code, by itself or as the cause', () => {
    for (const message of ['Connection terminated unexpectedly', 'timeout exceeded when trying to connect']) {
      assert.equal(databaseFault(new Error(message)), 'away');
      assert.equal(databaseFault(new Error('no device was read', { cause: new Error(message) })), 'away');
    }
  });

  test('away: every address of the host refuses', () => {
    assert.equal(databaseFault(new AggregateError([withCode('ECONNREFUSED'), withCode('ECONNREFUSED')])), 'away');
  });

  test('other: what is no error at all', () => {
    for (const value of [undefined, null, 'away', {}]) assert.equal(databaseFault(value), 'other');
  });
});

test('what is away or in conflict is worth another try, what is refused is not, and nothing is both', () => {
  for (const code of ['08006', '40001']) {
    assert.deepEqual([isTransientDatabaseError(withCode(code)), isRefusedByDatabase(withCode(code))], [true, false]);
  }
  for (const code of ['22003', '23503']) {
    assert.deepEqual([isTransientDatabaseError(withCode(code)), isRefusedByDatabase(withCode(code))], [false, true]);
  }
  for (const code of ['57014', '28P01', '42601']) {
    assert.deepEqual([isTransientDatabaseError(withCode(code)), isRefusedByDatabase(withCode(code))], [false, false]);
  }
});
