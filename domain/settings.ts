export type Environment = Record<string, string | undefined>;

/** All wrong or missing settings at once, each by its variable's name. */
export class ConfigError extends Error {
  readonly code = 'config_invalid';

  constructor(problems: string[]) {
    super(`Configuration: ${problems.join('; ')}`);
    this.name = 'ConfigError';
  }
}

/**
 * Reads settings and names every one that is missing or malformed.
 * @throws {ConfigError}
 */
export function readSettings<T>(env: Environment, read: (settings: Settings) => T): T {
  const settings = new Settings(env);
  const values = read(settings);
  if (settings.problems.length > 0) throw new ConfigError(settings.problems);
  return values;
}

/** Environment variables by name; an empty text counts as unset. Faults are noted in `problems`, and reading goes on. */
export class Settings {
  readonly problems: string[] = [];
  readonly #env: Environment;

  constructor(env: Environment) {
    this.#env = env;
  }

  text(name: string): string | undefined {
    return this.#env[name]?.trim() || undefined;
  }

  required(name: string): string {
    const value = this.text(name);
    if (value === undefined) this.problems.push(`${name} is not set`);
    return value ?? '';
  }

  integer(name: string, fallback: number, min = 1, max = Number.MAX_SAFE_INTEGER): number {
    return this.optionalInteger(name, min, max) ?? fallback;
  }

  optionalInteger(name: string, min = 1, max = Number.MAX_SAFE_INTEGER): number | undefined {
    const value = this.text(name);
    if (value === undefined) return undefined;
    const number = Number(value);
    if (Number.isSafeInteger(number) && number >= min && number <= max) return number;
    const range = max === Number.MAX_SAFE_INTEGER ? `of at least ${min}` : `from ${min} to ${max}`;
    this.problems.push(`${name} must be a whole number ${range}, not "${value}"`);
    return undefined;
  }

  oneOf<T extends string>(name: string, allowed: readonly T[], fallback: T): T {
    const value = this.text(name);
    if (value === undefined) return fallback;
    if ((allowed as readonly string[]).includes(value)) return value as T;
    this.problems.push(`${name} must be one of ${allowed.join(', ')}, not "${value}"`);
    return fallback;
  }

  /** Comma-separated. */
  someOf<T extends string>(name: string, allowed: readonly T[]): T[] {
    const values = this.text(name)
      ?.split(',')
      .map((value) => value.trim());
    if (values === undefined) return [...allowed];
    for (const value of values) {
      if ((allowed as readonly string[]).includes(value)) continue;
      this.problems.push(`${name}: "${value}" is not one of ${allowed.join(', ')}`);
    }
    return [...new Set(values)] as T[];
  }

  /** All of the variables or none of them. */
  together<const N extends readonly string[]>(...names: N): { [I in keyof N]: string } | undefined {
    const values = names.map((name) => this.text(name));
    if (values.every((value) => value === undefined)) return undefined;
    names.forEach((name, i) => {
      if (values[i] === undefined) this.problems.push(`${name} is not set (it belongs to ${names[0]})`);
    });
    return values.map((value) => value ?? '') as { [I in keyof N]: string };
  }
}
