import { readFile } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';

/** By name; Swagger UI's files are served from memory. */
export type DocsAssets = Record<string, { body: Uint8Array<ArrayBuffer>; contentType: string }>;

const files: Record<string, string> = {
  'swagger-ui.css': 'text/css; charset=utf-8',
  'swagger-ui-bundle.js': 'text/javascript; charset=utf-8',
  'favicon-32x32.png': 'image/png',
};

/** Swagger UI's files from the installed package, for the entries. */
export async function loadDocsAssets(): Promise<DocsAssets> {
  const folder = dirname(fileURLToPath(import.meta.resolve('swagger-ui-dist/package.json')));
  const entries = Object.entries(files).map(async ([name, contentType]) => {
    const body = new Uint8Array(await readFile(join(folder, name)));
    return [name, { body, contentType }] as const;
  });
  return Object.fromEntries(await Promise.all(entries));
}
