import { type Command, Option } from 'commander';
import { isUuid } from '../api/http/uuid.ts';
import { validationError } from '../api/http/validation.ts';
import { fromApiKey, newKeySchema } from '../api/keys/schemas.ts';
import { createApiKey, listApiKeys, revokeApiKey, rotateApiKey } from '../db/api-keys.ts';
import { inTransaction } from '../db/transaction.ts';
import type { JsonObject, JsonValue } from '../domain/json.ts';
import { scopes as allScopes, type Scope } from '../domain/scopes.ts';
import { duration, instant, scopeList, wholeNumber, word } from './arguments.ts';
import type { Installation } from './installation.ts';
import { operate } from './operate.ts';
import { type Shown, shown, table } from './output.ts';
import { listItems, pathOf } from './pages.ts';
import { Refusal, toRefusal } from './refusal.ts';

/** Whose key: of an app, by the API's routes; or of administrators, whose keys are made here alone. */
interface Owner {
  app?: string;
  admin?: boolean;
}

interface NewKey extends Owner {
  name: string;
  scopes?: Scope[];
  expiresAt?: string;
  expiresIn?: number;
  requestsPerSecond?: number;
}

const dayInSeconds = 86_400;

export function addKeys(program: Command): void {
  const keys = program.command('keys').description('keys of the API: of an app, or of administrators');

  ofOwner(keys.command('list'))
    .description('list keys, newest first; never the keys themselves')
    .addHelpText('after', '\nExample: npm run admin -- keys list --app shop')
    .action(
      operate(async (installation, owner: Owner) => {
        const app = appOf(owner);
        const found = await (app === null
          ? listAdminKeys(installation)
          : listItems(installation, pathOf(app, 'keys'), 'keys'));
        return shown(found, table(found, columns, 'There are no keys.'));
      }),
    );

  ofOwner(keys.command('create'))
    .description('make a key, and print it this once: only its hash is kept')
    .requiredOption('--name <text>', 'what people know it by', word)
    .option(
      '--scopes <list>',
      'all that it may do, with commas between them; of administrators: default all',
      scopeList,
    )
    .option('--expires-at <instant>', 'default: it lives until it is revoked', instant)
    .addOption(new Option('--expires-in <duration>', 'such as 90d').argParser(duration).conflicts('expiresAt'))
    .option('--requests-per-second <n>', 'in each process of the API', wholeNumber)
    .addHelpText('after', `\nScopes: ${allScopes.join(', ')}`)
    .addHelpText(
      'after',
      '\nExample: npm run admin -- keys create --app shop --name backend --scopes devices:write,messages:send --expires-in 90d',
    )
    .action(
      operate(async (installation, { name, scopes, expiresAt, expiresIn, requestsPerSecond, ...owner }: NewKey) => {
        const app = appOf(owner);
        const body = {
          name,
          expires_at: expiresIn === undefined ? expiresAt : new Date(Date.now() + expiresIn * 1_000).toISOString(),
          requests_per_second: requestsPerSecond,
        };
        if (app === null) return made(await createAdminKey(installation, scopes ?? allScopes, body));
        if (scopes === undefined) throw new Refusal('--scopes is needed with --app: a key may do nothing else.', 2);
        return made(await installation.ask('POST', pathOf(app, 'keys'), { ...body, scopes }));
      }),
    );

  ofOwner(keys.command('rotate'))
    .description('make another key that may do the same, and print it; the one before it lives on for a while')
    .argument('<id>')
    .option('--overlap <duration>', 'how long the one before it lives on, at most', duration, dayInSeconds)
    .addHelpText(
      'after',
      '\nExample: npm run admin -- keys rotate --app shop 019c0000-0000-7000-8000-000000000000 --overlap 1d',
    )
    .action(
      operate(async (installation, id: string, { overlap, ...owner }: Owner & { overlap: number }) => {
        const app = appOf(owner);
        if (app === null) return made(await rotateAdminKey(installation, id, overlap));
        const path = pathOf(app, 'keys', id, 'rotate');
        const names = { overlap_seconds: '--overlap' };
        return made(await installation.ask('POST', path, { overlap_seconds: overlap }, names));
      }),
    );

  ofOwner(keys.command('revoke'))
    .description('every process of the API refuses it within ten seconds')
    .argument('<id>')
    .addHelpText('after', '\nExample: npm run admin -- keys revoke --app shop 019c0000-0000-7000-8000-000000000000')
    .action(
      operate(async (installation, id: string, owner: Owner) => {
        const app = appOf(owner);
        await (app === null ? revokeAdminKey(installation, id) : installation.ask('DELETE', pathOf(app, 'keys', id)));
        return shown({ id }, `The key ${id} is revoked.`);
      }),
    );
}

function ofOwner(command: Command): Command {
  return command
    .option('--app <name>', 'of this app', word)
    .addOption(new Option('--admin', 'of administrators, who name an app with each request').conflicts('app'));
}

/** Null: of administrators. */
function appOf({ app, admin }: Owner): string | null {
  if (app === undefined && !admin) throw new Refusal('--app <name> or --admin is needed: whose key it is.', 2);
  return app ?? null;
}

/** The key alone where a script would take it. */
function made(key: JsonObject): Shown {
  return shown(key, `${key.key}`, `The key ${key.id} is shown this once: only its hash is kept.`);
}

async function createAdminKey(
  { db, actor }: Installation,
  scopes: readonly Scope[],
  body: object,
): Promise<JsonObject> {
  const read = newKeySchema.omit({ scopes: true }).safeParse(body);
  if (!read.success) {
    const { status, message: detail, errors } = validationError(read.error.issues);
    throw toRefusal({ status, detail, errors }, {});
  }
  const { name, expires_at, requests_per_second: requestsPerSecond } = read.data;
  const expiresAt = expires_at === undefined ? undefined : new Date(expires_at);
  if (expiresAt && expiresAt.getTime() <= Date.now()) throw new Refusal('--expires-at: Is in the past.', 2);
  const { key, plainKey } = await inTransaction(db, (trx) =>
    createApiKey(trx, actor, {
      ...{ appId: null, name, expiresAt, requestsPerSecond },
      scopes: allScopes.filter((scope) => scope === 'admin' || scopes.includes(scope)),
    }),
  );
  return { ...fromApiKey(key), key: plainKey };
}

async function listAdminKeys({ db }: Installation): Promise<JsonObject[]> {
  return (await listApiKeys(db, null, { limit: 1_000 })).map(fromApiKey);
}

async function rotateAdminKey({ db, actor }: Installation, id: string, overlapSeconds: number): Promise<JsonObject> {
  const rotated = await inTransaction(db, (trx) => rotateApiKey(trx, actor, null, checkedId(id), overlapSeconds));
  if (rotated.kind === 'unknown') throw noSuchKey();
  if (rotated.kind === 'ended') throw new Refusal('The key is revoked or has expired: make another.');
  return { ...fromApiKey(rotated.key), key: rotated.plainKey };
}

async function revokeAdminKey({ db, actor }: Installation, id: string): Promise<void> {
  const isThere = await inTransaction(db, (trx) => revokeApiKey(trx, actor, null, checkedId(id)));
  if (!isThere) throw noSuchKey();
}

function checkedId(id: string): string {
  if (!isUuid(id)) throw noSuchKey();
  return id;
}

function noSuchKey(): Refusal {
  return toRefusal({ status: 404, detail: 'There is no such key.' }, {});
}

const columns = {
  id: ({ id }: JsonObject) => id!,
  name: ({ name }: JsonObject) => name!,
  scopes: ({ scopes }: JsonObject) => scopes!,
  expires: ({ expires_at }: JsonObject) => expires_at!,
  'last use': ({ last_used_at }: JsonObject) => last_used_at!,
  state: ({ revoked_at, expires_at }: JsonObject) => stateOf(revoked_at!, expires_at!),
};

function stateOf(revokedAt: JsonValue, expiresAt: JsonValue): string {
  if (revokedAt !== null) return 'revoked';
  return typeof expiresAt === 'string' && Date.parse(expiresAt) <= Date.now() ? 'expired' : 'valid';
}
