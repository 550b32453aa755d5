/** Arithmetic and tables that the parts of the bench share. */

export function median(values: readonly number[]): number {
  const sorted = values.toSorted((a, b) => a - b);
  const middle = Math.floor(sorted.length / 2);
  return sorted.length % 2 === 1 ? sorted[middle]! : (sorted[middle - 1]! + sorted[middle]!) / 2;
}

export function round(value: number, digits: number): number {
  return Number(value.toFixed(digits));
}

/** The first column to the left, the others to the right. */
export function tableRow(title: string, ...cells: (string | number)[]): string {
  return `  ${title.padEnd(26)}${cells.map((cell) => String(cell).padStart(13)).join('')}`;
}
