import type { Transaction } from 'kysely';
import { lockAppByName } from '../../db/apps.ts';
import type { Database } from '../../db/schema.ts';
import { notFound } from '../http/api-error.ts';
import { refuseDeleted } from './enter-route.ts';

/**
 * Until the end of the transaction the app cannot begin to be deleted: it gets nothing that its deletion would not see.
 * @returns its id
 * @throws {ApiError} 404; 409 app_deleting
 */
export async function keepApp(trx: Transaction<Database>, name: string): Promise<number> {
  const app = await lockAppByName(trx, name);
  if (!app) throw notFound('app');
  refuseDeleted(app);
  return app.id;
}
