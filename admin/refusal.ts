/** Why a command did nothing, for the person who typed it. No stack trace, and nothing that a file with a secret holds. */
export class Refusal extends Error {
  /** 2: the command line is wrong; 1: everything else. */
  readonly exitCode: 1 | 2;

  constructor(message: string, exitCode: 1 | 2 = 1) {
    super(message);
    this.name = 'Refusal';
    this.exitCode = exitCode;
  }
}

/** What the API makes of an error; `field` and `errors` are named as in its bodies. */
export interface Problem {
  status: number;
  code: string;
  detail: string;
  field?: string | undefined;
  errors?: { field: string; message: string }[] | undefined;
}

/** Fields of bodies by option, where it is not the field's own name: `{ default_ttl_seconds: '--ttl' }`. */
export type OptionNames = Record<string, string>;

/** A line for each field at fault, by the name of its option. */
export function toRefusal({ status, detail, field, errors }: Omit<Problem, 'code'>, names: OptionNames): Refusal {
  const exitCode = status === 400 || status === 422 ? 2 : 1;
  if (errors !== undefined && errors.length > 0) {
    const lines = errors.map(({ field, message }) => `${optionOf(field, names)}${message}`);
    return new Refusal(lines.join('\n'), exitCode);
  }
  const hint = hints[detail];
  return new Refusal(
    `${field === undefined ? '' : optionOf(field, names)}${detail}${hint ? ` ${hint}` : ''}`,
    exitCode,
  );
}

const hints: Record<string, string> = {
  'There is no such app.': '`npm run admin -- apps list` shows those that there are.',
  'There is no such key.': '`npm run admin -- keys list` shows those that there are.',
  'There is no such credential.': '`npm run admin -- credentials list` shows those that there are.',
};

function optionOf(field: string, names: OptionNames): string {
  const name = field.replace(/[.[].*$/, '');
  return name === '' ? '' : `${names[name] ?? `--${name.replaceAll('_', '-')}`}: `;
}
