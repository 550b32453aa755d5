import process from 'node:process';
import { type ParseArgsOptionsConfig, parseArgs } from 'node:util';

/** For programs only: any wrong argument ends the process with status 2, `--help` with 0. */
export interface CommandLine<Values> {
  values: Values;
  positionals: string[];
  /** The option as a whole number, where it is given; `_` may stand between digits. */
  wholeNumber(name: keyof Values & string, min: number, max?: number): number | undefined;
  percent(name: keyof Values & string): number | undefined;
  /** Words with commas between them, each one of `known`. */
  listOf<T extends string>(name: keyof Values & string, known: readonly T[]): T[] | undefined;
  /** Says what is wrong, shows the usage and ends the process. */
  refuse(message: string): never;
}

/** Reads all arguments of this process: an unknown option or a further word is refused. */
export function readCommandLine<const T extends ParseArgsOptionsConfig>(
  usage: string,
  options: T,
  maxPositionals = 0,
): CommandLine<ReturnType<typeof parseArgs<{ options: T }>>['values']> {
  type Values = ReturnType<typeof parseArgs<{ options: T }>>['values'];

  function refuse(message: string): never {
    console.error(`${message}\n\n${usage}`);
    process.exit(2);
  }

  function parse() {
    try {
      const help = { type: 'boolean', short: 'h' } as const;
      return parseArgs({ options: { ...options, help }, allowPositionals: true, strict: true });
    } catch (error) {
      // The first sentence says what is wrong; the others say how Node would take it.
      return refuse(`${(error as Error).message.split(/\.\s/)[0]!.replace(/\.$/, '')}.`);
    }
  }

  const { values: given, positionals } = parse();
  if ((given as { help?: boolean }).help) {
    console.log(usage);
    process.exit(0);
  }
  const surplus = positionals[maxPositionals];
  if (surplus !== undefined) refuse(`"${surplus}" is not expected here.`);
  const values = given as Values;
  const text = (name: keyof Values) => values[name] as string | undefined;

  return {
    values,
    positionals,
    refuse,
    wholeNumber(name, min, max = Number.MAX_SAFE_INTEGER) {
      const given = text(name);
      if (given === undefined) return undefined;
      const number = /^\d[\d_]*$/.test(given) ? Number(given.replaceAll('_', '')) : Number.NaN;
      if (number >= min && number <= max) return number;
      const range = max === Number.MAX_SAFE_INTEGER ? `of at least ${min}` : `from ${min} to ${max}`;
      return refuse(`--${name} must be a whole number ${range}, not "${given}".`);
    },
    percent(name) {
      const given = text(name);
      if (given === undefined) return undefined;
      const number = /^\d+(\.\d+)?$/.test(given) ? Number(given) : Number.NaN;
      if (number <= 100) return number;
      return refuse(`--${name} must be a number from 0 to 100, not "${given}".`);
    },
    listOf<W extends string>(name: keyof Values & string, known: readonly W[]) {
      const given = text(name);
      if (given === undefined) return undefined;
      const words = given.split(',').map((word) => word.trim());
      const unknown = words.find((word) => !(known as readonly string[]).includes(word));
      if (unknown !== undefined) refuse(`--${name}: "${unknown}" is not one of ${known.join(', ')}.`);
      return words as W[];
    },
  };
}
