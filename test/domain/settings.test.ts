import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { ConfigError, type Environment, readSettings, type Settings } from '../../domain/settings.ts';

type Read = (settings: Settings) => unknown;

/** In the words of the error, without its beginning. */
function problemsOf(env: Environment, read: Read): string {
  try {
    readSettings(env, read);
  } catch (error) {
    assert.ok(error instanceof ConfigError);
    assert.equal(error.code, 'config_invalid');
    return error.message.replace(/^Configuration: /, '');
  }
  return 'none';
}

const text: Read = (settings) => settings.text('A');
const required: Read = (settings) => settings.required('A');
const integer: Read = (settings) => settings.integer('A', 7);
const integerOr0: Read = (settings) => settings.integer('A', 7, 0);
const colour: Read = (settings) => settings.oneOf('A', ['red', 'blue'], 'blue');
const colours: Read = (settings) => settings.someOf('A', ['red', 'blue']);
const both: Read = (settings) => settings.together('A', 'B');

describe('a setting is read', () => {
  const rows: [rule: string, read: Read, env: Environment, value: unknown][] = [
    ['a text', text, { A: 'x y' }, 'x y'],
    ['… without blanks around it', text, { A: ' x\n' }, 'x'],
    ['… that is not there', text, {}, undefined],
    ['… empty, which is unset', text, { A: '' }, undefined],
    ['… blank, which is empty', text, { A: ' \t' }, undefined],
    ['a text that is required', required, { A: 'x' }, 'x'],
    ['a number', integer, { A: '12' }, 12],
    ['… of the least', integer, { A: '1' }, 1],
    ['… of 0 where that is the least', integerOr0, { A: '0' }, 0],
    ['… of the most', integer, { A: '9007199254740991' }, Number.MAX_SAFE_INTEGER],
    ['… that is unset: the default', integer, { A: ' ' }, 7],
    ['a word', colour, { A: 'red' }, 'red'],
    ['… that is unset: the default', colour, { A: '' }, 'blue'],
    ['words', colours, { A: 'blue , red' }, ['blue', 'red']],
    ['… that are unset: all of them', colours, { A: '' }, ['red', 'blue']],
    ['settings that belong together', both, { A: 'x', B: 'y' }, ['x', 'y']],
    ['… none of them', both, { A: '', B: ' ' }, undefined],
  ];
  for (const [rule, read, env, value] of rows) {
    test(rule, () => assert.deepEqual(readSettings(env, read), value));
  }
});

describe('a setting is refused', () => {
  const noNumber = (value: string, least = 1) => `A must be a whole number of at least ${least}, not "${value}"`;
  const rows: [rule: string, read: Read, env: Environment, problems: string][] = [
    ['a text that is missing', required, {}, 'A is not set'],
    ['… or empty', required, { A: ' ' }, 'A is not set'],
    ['a number below the least', integer, { A: '0' }, noNumber('0')],
    ['… also where 0 is the least', integerOr0, { A: '-1' }, noNumber('-1', 0)],
    ['… with a fraction', integer, { A: '1.5' }, noNumber('1.5')],
    ['… in words', integer, { A: 'ten' }, noNumber('ten')],
    ['… with separators', integer, { A: '1_000' }, noNumber('1_000')],
    ['… with a unit', integer, { A: '10s' }, noNumber('10s')],
    ['… without end', integer, { A: 'Infinity' }, noNumber('Infinity')],
    ['… beyond exact numbers', integer, { A: '9007199254740992' }, noNumber('9007199254740992')],
    ['a word that is none of the list', colour, { A: 'Red' }, 'A must be one of red, blue, not "Red"'],
    ['words of which one is none of the list', colours, { A: 'red,pink' }, 'A: "pink" is not one of red, blue'],
    ['… each of them', colours, { A: 'x,red,y' }, 'A: "x" is not one of red, blue; A: "y" is not one of red, blue'],
    ['… a comma too many', colours, { A: 'red,' }, 'A: "" is not one of red, blue'],
    ['one without what belongs to it', both, { A: 'x' }, 'B is not set (it belongs to A)'],
    ['… the first too', both, { B: 'y' }, 'A is not set (it belongs to A)'],
  ];
  for (const [rule, read, env, problems] of rows) {
    test(rule, () => assert.equal(problemsOf(env, read), problems));
  }

  test('together with all others that are wrong, in the order of reading', () => {
    const read = (settings: Settings) => [
      settings.required('A'),
      settings.integer('B', 1),
      settings.text('C'),
      settings.oneOf('D', ['x'], 'x'),
    ];
    assert.equal(
      problemsOf({ B: 'b', C: 'c', D: 'd' }, read),
      `A is not set; ${noNumber('b').replace('A', 'B')}; D must be one of x, not "d"`,
    );
  });
});
