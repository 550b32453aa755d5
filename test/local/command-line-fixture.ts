import { readCommandLine } from '../../domain/command-line.ts';

const { values, positionals, wholeNumber, percent, listOf } = readCommandLine(
  'fixture -- [options]',
  {
    workers: { type: 'string' },
    size: { type: 'string' },
    dead: { type: 'string' },
    parts: { type: 'string' },
    json: { type: 'boolean' },
  },
  1,
);
const numbers = [wholeNumber('workers', 1, 64), wholeNumber('size', 500), percent('dead')];
console.log(JSON.stringify({ numbers, parts: listOf('parts', ['apns', 'fcm']), json: values.json, positionals }));
