import { readFile } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import type { DocsAssets } from '../dependencies.ts';

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
