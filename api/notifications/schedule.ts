import type { Kysely } from 'kysely';
import { databaseNow } from '../../db/clock.ts';
import type { Database } from '../../db/schema.ts';
import type { ApiDependencies } from '../dependencies.ts';
import { invalidField } from '../http/api-error.ts';

const maxAheadMs = 366 * 24 * 3_600_000;
/** Clocks of callers are a little behind; anything older is a mistake. */
const maxBehindMs = 60_000;

/** The instant that `scheduled_at` says. @throws {ApiError} 422 for a time in the past or too far ahead. */
export async function toScheduledAt(text: string, { now }: ApiDependencies, db: Kysely<Database>): Promise<Date> {
  const at = new Date(text);
  const aheadMs = at.getTime() - (now?.() ?? (await databaseNow(db))).getTime();
  if (!(aheadMs >= -maxBehindMs)) throw invalidField('scheduled_at', 'Is in the past.');
  if (aheadMs > maxAheadMs) throw invalidField('scheduled_at', 'Is more than 366 days ahead.');
  return at;
}
