import { beginAppDeletion, countContents } from '../../db/app-deletion.ts';
import { findAppOfAnyApp, lockAppByName } from '../../db/apps.ts';
import { recordChange } from '../../db/audit-entries.ts';
import { inTransaction } from '../../db/transaction.ts';
import type { Actor } from '../../domain/actor.ts';
import { type App, defaultAppName } from '../../domain/app.ts';
import type { ApiDependencies } from '../dependencies.ts';
import { ApiError, invalidField, notFound } from '../http/api-error.ts';

/**
 * From here on nothing of the app can be created, and Temporal deletes it. A repeat changes nothing.
 * @param confirmed the name, from a caller who knows that there is something to lose
 * @throws {ApiError} 404; 409 default_app, app_not_empty; 422 for another name
 */
export async function requestDeletion(
  { db, waker }: ApiDependencies,
  actor: Actor,
  name: string,
  confirmed: string | undefined,
): Promise<App> {
  if (confirmed !== undefined && confirmed !== name) throw invalidField('confirm', 'Is not the name of this app.');
  const deleted = await inTransaction(db, async (trx) => {
    const app = await lockAppByName(trx, name);
    if (!app) throw notFound('app');
    if (app.deletion) return app;
    if (name === defaultAppName) {
      throw new ApiError(409, 'default_app', `The app ${name} is the one of credentials from files: it stays.`);
    }
    const has = await countContents(trx, app.id);
    if (confirmed === undefined && Object.values(has).some((rows) => rows > 0)) throw notEmpty(name, has);
    await beginAppDeletion(trx, app.id);
    const target = { kind: 'app', id: name };
    await recordChange(trx, actor, { appId: app.id, action: 'app.delete', target, changes: { ...has } });
    return (await findAppOfAnyApp(trx, app.id)) ?? app;
  });
  await waker.deleteApp(deleted);
  return deleted;
}

function notEmpty(name: string, has: Awaited<ReturnType<typeof countContents>>): ApiError {
  const message = `The app ${name} has devices or sends: confirm=${name} deletes it with all of them.`;
  return new ApiError(409, 'app_not_empty', message, { extra: { ...has } });
}
