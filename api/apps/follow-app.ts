import type { Kysely } from 'kysely';
import { findAppOfAnyApp } from '../../db/apps.ts';
import type { Database } from '../../db/schema.ts';
import type { App } from '../../domain/app.ts';
import { refuseDeleted } from '../access/enter-route.ts';
import { notFound } from '../http/api-error.ts';

const lookMs = 5_000;

/**
 * For requests that take long: the app as it was a few seconds ago at most.
 * @throws {ApiError} 409 app_deleting, 404; from the function that is returned
 */
export function followApp(db: Kysely<Database>, from: App): () => Promise<App> {
  let app = from;
  let askedAt = performance.now();
  return async () => {
    if (performance.now() - askedAt >= lookMs) {
      askedAt = performance.now();
      const found = await findAppOfAnyApp(db, from.id);
      if (!found) throw notFound('app');
      refuseDeleted(found);
      app = found;
    }
    return app;
  };
}
