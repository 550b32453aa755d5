import type { Context } from 'hono';
import { matchedRoutes, routePath } from 'hono/route';

/** The pattern, not the path: a path holds the ids that the caller gave its devices. Of a request that was refused on its way, too. */
export function routeOf(c: Context): string {
  const answeredBy = routePath(c);
  if (!answeredBy.includes('*')) return answeredBy;
  return matchedRoutes(c).find(({ path }) => !path.includes('*'))?.path ?? 'none';
}
