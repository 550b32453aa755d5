import type { Context, MiddlewareHandler } from 'hono';
import type { App } from '../../domain/app.ts';
import type { Scope } from '../../domain/scopes.ts';
import { ApiError, notFound } from '../http/api-error.ts';
import type { AppEnv } from '../http/env.ts';
import { requireScope } from './require-scope.ts';

export const appHeader = 'Carillon-App';

/**
 * Which app a route is about: the one that its path names, the caller's own (an administrator's request names one by header), or
 * none, on what administrators do to the installation.
 */
export type AppSource = 'path' | 'caller' | 'none';

/**
 * Stands before every route that is not open, and before its body is read: the scope, then the app. Another app is one that does
 * not exist.
 * @throws {ApiError} 403 scope_missing; 400 app_required; 404; 409 app_deleting
 */
export function enterRoute(scope: Scope, source: AppSource): MiddlewareHandler<AppEnv> {
  return async function enterRoute(c, next) {
    requireScope(c.var.caller, scope);
    if (source !== 'none') {
      const app = source === 'path' ? await appOfPath(c) : await appOfCaller(c);
      // Those with this scope ask how far it is.
      if (scope !== 'admin') refuseDeleted(app);
      c.set('app', app);
    }
    await next();
  };
}

/** @throws {ApiError} 409 app_deleting */
export function refuseDeleted({ name, deletion }: App): void {
  if (deletion) throw new ApiError(409, 'app_deleting', `The app ${name} is being deleted.`);
}

async function appOfPath(c: Context<AppEnv>): Promise<App> {
  const app = await appNamed(c, c.req.param('app') ?? '');
  if (!app) throw notFound('app');
  return app;
}

async function appOfCaller(c: Context<AppEnv>): Promise<App> {
  const own = c.var.caller.app;
  const name = c.req.header(appHeader);
  if (name === undefined) {
    if (own) return own;
    throw new ApiError(400, 'app_required', `The key belongs to no app: name one by the header ${appHeader}.`, {
      field: appHeader,
    });
  }
  const app = await appNamed(c, name);
  if (!app) throw new ApiError(404, 'not_found', `There is no app as ${appHeader} names it.`, { field: appHeader });
  return app;
}

async function appNamed({ var: { caller, findApp } }: Context<AppEnv>, name: string): Promise<App | undefined> {
  if (caller.app) return caller.app.name === name ? caller.app : undefined;
  return findApp(name);
}
