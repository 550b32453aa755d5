import { type Kysely, sql } from 'kysely';
import type { Database } from './schema.ts';

interface ProviderTokenRecord {
  token: string;
  issuedAt: Date;
  /** Since it was stored, by the database's clock: the one clock that all workers share. */
  ageMs: number;
}

interface ProviderTokenStore {
  /**
   * The stored provider token if it is younger than `olderThanMs` and not the refused one; otherwise one new one. Of any
   * number of workers that ask at once, one mints while the others wait for its token: the key's advisory lock orders them.
   */
  getOrCreate(
    fingerprint: string,
    olderThanMs: number,
    mint: () => Promise<{ token: string; issuedAt: Date }>,
    refusedToken?: string,
  ): Promise<ProviderTokenRecord>;
}

/** The store that all workers share. */
export function createProviderTokenStore(db: Kysely<Database>): ProviderTokenStore {
  return {
    async getOrCreate(fingerprint, olderThanMs, mint, refusedToken) {
      // An age below zero means that the database's clock was set back: how old the token is cannot be known.
      const isUsable = (found: ProviderTokenRecord | undefined): found is ProviderTokenRecord =>
        found !== undefined && found.ageMs > -5_000 && found.ageMs < olderThanMs && found.token !== refusedToken;

      const found = await findProviderToken(db, fingerprint);
      if (isUsable(found)) return found;
      return await db.transaction().execute(async (trx) => {
        await sql`select pg_advisory_xact_lock(hashtextextended(${`provider_token ${fingerprint}`}, 0))`.execute(trx);
        const current = await findProviderToken(trx, fingerprint);
        if (isUsable(current)) return current;
        const { token, issuedAt } = await mint();
        const storedAt = sql<Date>`clock_timestamp()`;
        await trx
          .insertInto('provider_tokens')
          .values({ fingerprint, token, issued_at: issuedAt, updated_at: storedAt })
          .onConflict((conflict) =>
            conflict.column('fingerprint').doUpdateSet({ token, issued_at: issuedAt, updated_at: storedAt }),
          )
          .execute();
        return { token, issuedAt, ageMs: 0 };
      });
    },
  };
}

/** Undefined until a worker has stored one. */
async function findProviderToken(db: Kysely<Database>, fingerprint: string): Promise<ProviderTokenRecord | undefined> {
  const row = await db
    .selectFrom('provider_tokens')
    .select(['token', 'issued_at', ageMs.as('age_ms')])
    .where('fingerprint', '=', fingerprint)
    .executeTakeFirst();
  return row && { token: row.token, issuedAt: row.issued_at, ageMs: row.age_ms };
}

const ageMs = sql<number>`(extract(epoch from clock_timestamp() - updated_at) * 1000)::float8`;
