import { open } from 'node:fs/promises';
import process from 'node:process';
import { Refusal } from './refusal.ts';

const maxBytes = 1_048_576;

/**
 * What a file holds or, for `-`, standard input: text as it is, anything else (a .p12 file) as base64. Arguments are seen by every
 * process of the machine and kept by shells, so a secret is never one; what looks like one is not repeated either.
 * @throws {Refusal} naming the option
 */
export async function readSecret(option: string, file: string): Promise<string> {
  const bytes = await readAll(option, file);
  if (bytes.length === 0) throw new Refusal(`${option}: there is nothing in it.`, 2);
  try {
    return new TextDecoder('utf-8', { fatal: true }).decode(bytes);
  } catch {
    return bytes.toString('base64');
  }
}

async function readAll(option: string, file: string): Promise<Buffer> {
  const pieces: Buffer[] = [];
  let size = 0;
  try {
    const source = file === '-' ? process.stdin : (await open(file)).createReadStream();
    for await (const piece of source) {
      pieces.push(piece);
      size += piece.length;
      if (size > maxBytes) throw new Refusal(`${option}: larger than ${maxBytes} bytes.`, 2);
    }
  } catch (error) {
    if (error instanceof Refusal) throw error;
    const code = (error as { code?: unknown }).code;
    throw new Refusal(`${option}: the file cannot be read (${code}). Name a file, or - for standard input.`, 2);
  }
  return Buffer.concat(pieces);
}
