import { OpenAPIHono, type RouteConfig, type RouteHandler } from '@hono/zod-openapi';
import type { Hono, MiddlewareHandler } from 'hono';
import type { Scope } from '../../domain/scopes.ts';
import { type AppSource, appHeader, enterRoute } from '../access/enter-route.ts';
import type { ApiEnv, AppEnv } from './env.ts';
import { readJsonBody } from './json-body.ts';
import { isNdjson, ndjsonMediaType } from './ndjson.ts';
import { accessProblems } from './problem-schema.ts';
import { refuseInvalid } from './validation.ts';

/** A route names what its caller must be allowed; `open` asks for nothing, not even a key. */
type Route = RouteConfig & { scope: Scope | 'open' };

/** By the path where it has `{app}`; administrators' other routes are about no app. */
type EnvOf<R extends Route> = R['path'] extends `${string}{app}${string}`
  ? AppEnv
  : R['scope'] extends 'admin' | 'open'
    ? ApiEnv
    : AppEnv;

type Base = Omit<OpenAPIHono<ApiEnv>, 'openapi' | 'openapiRoutes' | 'route'>;

/** A Hono that takes no route without a scope. */
export interface Router extends Base {
  openapi<R extends Route>(route: R, handler: RouteHandler<R, EnvOf<R>>): Router;
  route(path: string, router: Router | Hono<ApiEnv>): Router;
}

/** Keeps what types say of the route: its path, its schemas, its scope. */
export function defineRoute<P extends string, R extends Omit<Route, 'path'> & { path: P }>(route: R): R {
  return route;
}

/** What every resource file begins with: its schemas refuse by one problem document, its routes ask for their scope first. */
export function createRouter(): Router {
  const hono = new OpenAPIHono<ApiEnv>({ defaultHook: refuseInvalid });
  const register = hono.openapi as (route: RouteConfig, handler: unknown) => unknown;
  const openapi = (route: Route, handler: unknown) => {
    register(withAccess(route), handler);
    return router;
  };
  const router = Object.assign(hono, { openapi }) as unknown as Router;
  return router;
}

function withAccess({ scope, ...route }: Route): RouteConfig {
  if (scope === 'open') return { ...route, security: [] };
  const source = appSourceOf(route.path, scope);
  return {
    ...route,
    // OpenAPI 3.1: names of roles, where the scheme is not OAuth.
    security: [{ bearer: [scope] }],
    description: [route.description, `Needs the scope \`${scope}\`.`].filter(Boolean).join('\n\n'),
    ...(source === 'caller' && { parameters: [appParameter] }),
    responses: { ...accessProblems, ...route.responses },
    middleware: [enterRoute(scope, source), bodyReaderOf(route), route.middleware ?? []].flat(),
  };
}

const appParameter = {
  name: appHeader,
  in: 'header' as const,
  schema: { type: 'string' as const },
  description: 'The app that the request is about, for keys of administrators; all others belong to one.',
};

function appSourceOf(path: string, scope: Scope): AppSource {
  if (path.includes('{app}')) return 'path';
  return scope === 'admin' ? 'none' : 'caller';
}

const readBody = readJsonBody();

/** Lines of JSON may be of any length: their routes read them as they come. */
function bodyReaderOf({ request }: RouteConfig): MiddlewareHandler<ApiEnv> {
  const content = request?.body?.content ?? {};
  if (!(ndjsonMediaType in content)) return readBody;
  if (!('application/json' in content)) return (_, next) => next();
  return (c, next) => (isNdjson(c.req.header('content-type')) ? next() : readBody(c, next));
}
