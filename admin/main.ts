import process from 'node:process';
import { CommanderError } from 'commander';
import { describeDatabaseError } from '../db/database-error.ts';
import { createProgram } from './program.ts';
import { Refusal } from './refusal.ts';

try {
  await createProgram().parseAsync();
} catch (error) {
  process.exitCode = exitCodeOf(error);
}

/** Says what is wrong, unless the parser did. */
function exitCodeOf(error: unknown): number {
  if (error instanceof CommanderError) return error.code === 'commander.helpDisplayed' ? 0 : 2;
  if (error instanceof Refusal) {
    console.error(error.message);
    return error.exitCode;
  }
  console.error(`It is not done: ${describeDatabaseError(error)}.`);
  return 1;
}
