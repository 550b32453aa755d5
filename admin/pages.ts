import type { JsonObject } from '../domain/json.ts';
import type { Installation } from './installation.ts';

/** The first items of a listing of the API; default: all, over as many pages as it has. */
export async function listItems(
  { ask }: Installation,
  path: string,
  member: string,
  query: Record<string, string> = {},
  limit = Number.POSITIVE_INFINITY,
): Promise<JsonObject[]> {
  const items: JsonObject[] = [];
  for (let cursor: string | null | undefined; items.length < limit && cursor !== null; ) {
    const search = new URLSearchParams({ ...query, ...(cursor !== undefined && { cursor }), limit: '100' });
    const page = await ask('GET', `${path}?${search}`);
    items.push(...(page[member] as JsonObject[]));
    cursor = page.next_cursor as string | null;
  }
  return items.slice(0, limit);
}

/** `/v1/apps/shop/keys`: whatever stands in a name stays within its part. */
export function pathOf(app: string, ...rest: string[]): string {
  return ['/v1/apps', ...[app, ...rest].map(encodeURIComponent)].join('/');
}
