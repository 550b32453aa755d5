import type { MiddlewareHandler } from 'hono';
import { ApiError, invalidField } from './api-error.ts';
import type { ApiEnv } from './env.ts';
import { unstorableText } from './storable.ts';

/**
 * Refuses what no route could take: escapes that are not UTF-8 (400), NUL and half characters (422 with the name of the
 * parameter). `fieldInPath` names the parameter that a path has.
 */
export function checkUrl(fieldInPath: (path: string) => string): MiddlewareHandler<ApiEnv> {
  return async function checkUrl(c, next) {
    // Node refuses a malformed Host header before it comes here, Deno makes a URL of it.
    if (!URL.canParse(c.req.url)) throw new ApiError(400, 'malformed_request', 'The Host header makes no valid URL.');
    const url = new URL(c.req.url);
    const path = decodedPath(url);
    refuseUnstorableText(fieldInPath(path), path);
    for (const [name, value] of url.searchParams) refuseUnstorableText(name, value);
    await next();
  };
}

function decodedPath(url: URL): string {
  try {
    decodeURIComponent(url.search.replaceAll('+', ' '));
    return decodeURIComponent(url.pathname);
  } catch (cause) {
    throw new ApiError(400, 'invalid_encoding', 'The URL has escapes that are not UTF-8.', { cause });
  }
}

function refuseUnstorableText(field: string, text: string): void {
  const message = unstorableText(text);
  if (message !== undefined) throw invalidField(field, message);
}
