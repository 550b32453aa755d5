import type { JsonObject, JsonValue } from '../domain/json.ts';

/** What a command has to say: for people, or with `--json` for programs. */
export interface Shown {
  text: string;
  json: string;
  /** For people alone, beside what a script would take. */
  note?: string;
}

export function shown(value: JsonValue, text: string, note?: string): Shown {
  return { text, json: JSON.stringify(value, null, 2), ...(note !== undefined && { note }) };
}

/** A title for each column and its cells; `nothing` where there are no rows. */
export function table(
  rows: JsonObject[],
  columns: Record<string, (row: JsonObject) => JsonValue>,
  nothing: string,
): string {
  if (rows.length === 0) return nothing;
  const lines = [Object.keys(columns), ...rows.map((row) => Object.values(columns).map((cell) => plain(cell(row))))];
  const widths = Object.keys(columns).map((_, i) => Math.max(...lines.map((line) => line[i]!.length)));
  return lines
    .map((line) =>
      line
        .map((cell, i) => cell.padEnd(widths[i]!))
        .join('  ')
        .trimEnd(),
    )
    .join('\n');
}

/** A line for each field. */
export function fields(value: JsonObject): string {
  const width = Math.max(...Object.keys(value).map((name) => name.length));
  return Object.entries(value)
    .map(([name, field]) => `${name.padEnd(width)}  ${plain(field)}`)
    .join('\n');
}

/** One line, and no control character that a terminal would obey: names come from outside. */
export function plain(value: JsonValue | undefined): string {
  if (value === null || value === undefined || value === '') return '-';
  const text = Array.isArray(value)
    ? value.map(plain).join(',') || '-'
    : typeof value === 'object'
      ? JSON.stringify(value)
      : String(value);
  return text.replaceAll(/\p{Cc}/gu, '\u{fffd}');
}
