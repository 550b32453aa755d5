import type { Handler, NotFoundHandler } from 'hono';
import { ApiError } from './api-error.ts';
import type { ApiEnv } from './env.ts';
import { handleNotFound, problemResponse } from './problems.ts';
import type { Router } from './router.ts';

/**
 * Answers for methods that no route is declared for: 405 with `Allow` where the path takes others (RFC 9110, 15.5.6), `Allow`
 * alone for OPTIONS. HEAD is answered by whatever answers GET.
 */
export function methodAnswers(app: Router): {
  options: Handler<ApiEnv>;
  notFound: NotFoundHandler<ApiEnv>;
} {
  let routes: { method: string; path: string; pattern: RegExp }[] | undefined;

  function allowed(path: string): string | undefined {
    routes ??= app.routes
      .filter(({ method }) => method !== 'ALL' && method !== 'OPTIONS')
      .map(({ method, path }) => ({ method, path, pattern: new RegExp(`^${path.replaceAll(/:\w+/g, '[^/]+')}$`) }));
    const own = routes.filter((route) => route.path === path);
    // "import" could be a device too, as far as patterns go; the document has it as a path of its own.
    const matching = own.length > 0 ? own : routes.filter(({ pattern }) => pattern.test(path));
    const methods = new Set(matching.map(({ method }) => method));
    if (methods.size === 0) return undefined;
    if (methods.has('GET')) methods.add('HEAD');
    return [...methods.add('OPTIONS')].sort().join(', ');
  }

  return {
    options(c) {
      const allow = allowed(c.req.path);
      return allow === undefined ? handleNotFound(c) : c.body(null, 204, { Allow: allow });
    },
    notFound(c) {
      const allow = allowed(c.req.path);
      if (allow === undefined) return handleNotFound(c);
      const message = `${c.req.method} is not possible here, only ${allow}.`;
      return problemResponse(c, new ApiError(405, 'method_not_allowed', message, { headers: { Allow: allow } }));
    },
  };
}
