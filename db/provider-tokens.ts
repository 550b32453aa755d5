import { type Kysely, sql } from 'kysely';
import type { Database } from './schema.ts';
import { openText, SealedTextError, sealText } from './sealed-text.ts';

interface ProviderTokenRecord {
  token: string;
  issuedAt: Date;
  /** Since it was stored, by the database's clock: the one clock that all workers share. */
  ageMs: number;
}

/** Whose token it is. */
interface TokenOwner {
  fingerprint: string;
  /** 32 bytes that follow from the credential: whoever could make such a token may read it, and nobody else. */
  sealingKey: Uint8Array;
}

interface ProviderTokenStore {
  /**
   * The stored provider token if it is younger than `olderThanMs` and not the refused one; otherwise one new one. Of any
   * number of workers that ask at once, one mints while the others wait for its token: the key's advisory lock orders them.
   */
  getOrCreate(
    owner: TokenOwner,
    olderThanMs: number,
    mint: () => Promise<{ token: string; issuedAt: Date }>,
    refusedToken?: string,
  ): Promise<ProviderTokenRecord>;
}

/** The store that all workers share. */
export function createProviderTokenStore(db: Kysely<Database>): ProviderTokenStore {
  return {
    async getOrCreate(owner, olderThanMs, mint, refusedToken) {
      // An age below zero means that the database's clock was set back: how old the token is cannot be known.
      const isUsable = (found: ProviderTokenRecord | undefined): found is ProviderTokenRecord =>
        found !== undefined && found.ageMs > -5_000 && found.ageMs < olderThanMs && found.token !== refusedToken;

      const { fingerprint, sealingKey } = owner;
      const found = await findProviderToken(db, owner);
      if (isUsable(found)) return found;
      return await db.transaction().execute(async (trx) => {
        await sql`select pg_advisory_xact_lock(hashtextextended(${`provider_token ${fingerprint}`}, 0))`.execute(trx);
        const current = await findProviderToken(trx, owner);
        if (isUsable(current)) return current;
        const { token, issuedAt } = await mint();
        const tokenJwe = await sealText(token, sealingKey, contextOf(fingerprint));
        const storedAt = sql<Date>`clock_timestamp()`;
        await trx
          .insertInto('provider_tokens')
          .values({ fingerprint, token_jwe: tokenJwe, issued_at: issuedAt, updated_at: storedAt })
          .onConflict((conflict) =>
            conflict
              .column('fingerprint')
              .doUpdateSet({ token_jwe: tokenJwe, issued_at: issuedAt, updated_at: storedAt }),
          )
          .execute();
        return { token, issuedAt, ageMs: 0 };
      });
    },
  };
}

/** None can be used after an hour (Apple). A credential that is gone leaves its last one. */
export async function forgetOldProviderTokensOfAllApps(db: Kysely<Database>): Promise<void> {
  await db.deleteFrom('provider_tokens').where('updated_at', '<', sql<Date>`now() - interval '1 day'`).execute();
}

/** Undefined until a worker has stored one, and where it does not open. */
async function findProviderToken(db: Kysely<Database>, owner: TokenOwner): Promise<ProviderTokenRecord | undefined> {
  const row = await db
    .selectFrom('provider_tokens')
    .select(['token_jwe', 'issued_at', ageMs.as('age_ms')])
    .where('fingerprint', '=', owner.fingerprint)
    .executeTakeFirst();
  if (row === undefined) return undefined;
  try {
    const token = await openText(row.token_jwe, owner.sealingKey, contextOf(owner.fingerprint));
    return { token, issuedAt: row.issued_at, ageMs: row.age_ms };
  } catch (error) {
    if (error instanceof SealedTextError) return undefined;
    throw error;
  }
}

function contextOf(fingerprint: string): string {
  return `provider_token:${fingerprint}`;
}

const ageMs = sql<number>`(extract(epoch from clock_timestamp() - updated_at) * 1000)::float8`;
