import type { Command } from 'commander';
import { countCredentialsByMasterKeyOfAllApps, reencryptCredentialsOfAllApps } from '../db/credentials.ts';
import { generateMasterKey, type MasterKeys } from '../db/master-keys.ts';
import { countWebhooksByMasterKeyOfAllApps, reencryptWebhooksOfAllApps } from '../db/webhooks.ts';
import type { JsonObject } from '../domain/json.ts';
import { operate, show } from './operate.ts';
import { shown, table } from './output.ts';
import { Refusal } from './refusal.ts';

export function addMasterKeys(program: Command): void {
  const masterKeys = program
    .command('master-keys')
    .description(
      'the keys of CARILLON_MASTER_KEYS, which seal credentials and the secrets of webhooks in the database',
    );

  masterKeys
    .command('generate')
    .description('print a new key; in front of CARILLON_MASTER_KEYS it seals, behind it only opens')
    .addHelpText('after', '\nExample: npm run admin -- master-keys generate')
    .action((_options, command: Command) => {
      const { id, key } = generateMasterKey();
      const note =
        'Put it in front of CARILLON_MASTER_KEYS, for the API and every worker; keep the others behind a comma.';
      show(command, shown({ id, key }, key, note));
    });

  masterKeys
    .command('status')
    .description('how many credentials and webhooks each key has sealed: a key with none may go')
    .addHelpText('after', '\nExample: npm run admin -- master-keys status')
    .action(
      operate(async ({ db, masterKeys }) => {
        const counts = await countCredentialsByMasterKeyOfAllApps(db);
        const webhooks = await countWebhooksByMasterKeyOfAllApps(db);
        const ids = new Set([...(masterKeys?.ids ?? []), ...counts.keys(), ...webhooks.keys()]);
        const rows = [...ids].map((id) => ({
          ...{ id, credentials: counts.get(id) ?? 0, webhooks: webhooks.get(id) ?? 0 },
          state: stateOf(id, masterKeys),
        }));
        return shown(rows, table(rows, columns, 'CARILLON_MASTER_KEYS is not set, and nothing is sealed.'));
      }),
    );

  masterKeys
    .command('reencrypt')
    .description('seal by the first key what others have sealed; it may be stopped and repeated')
    .addHelpText('after', '\nExample: npm run admin -- master-keys reencrypt')
    .action(
      operate(async ({ db, actor, masterKeys }) => {
        const ring = needMasterKeys(masterKeys);
        const credentials = await reencryptCredentialsOfAllApps(db, actor, ring);
        const webhooks = await reencryptWebhooksOfAllApps(db, actor, ring);
        const resealed = credentials.resealed + webhooks.resealed;
        const unreadable = [
          ...credentials.unreadable.map((id) => `credential ${id} (store it again)`),
          ...webhooks.unreadable.map((id) => `webhook ${id} (rotate its secret)`),
        ];
        if (unreadable.length > 0) {
          throw new Refusal(`${resealed} secrets are sealed anew. No key opens these: ${unreadable.join(', ')}.`);
        }
        return shown({ resealed }, `${resealed} secrets are sealed anew, by ${ring.currentId}.`);
      }),
    );
}

/** @throws {Refusal} that says how to get some */
export function needMasterKeys(masterKeys: MasterKeys | undefined): MasterKeys {
  if (masterKeys !== undefined) return masterKeys;
  throw new Refusal(
    'CARILLON_MASTER_KEYS is not set: set what `npm run admin -- master-keys generate` prints, here, for the API and for every worker.',
  );
}

const columns = {
  id: ({ id }: JsonObject) => id!,
  credentials: ({ credentials }: JsonObject) => credentials!,
  webhooks: ({ webhooks }: JsonObject) => webhooks!,
  state: ({ state }: JsonObject) => state!,
};

function stateOf(id: string, masterKeys: MasterKeys | undefined): string {
  if (id === masterKeys?.currentId) return 'seals';
  return masterKeys?.ids.includes(id) ? 'opens' : 'missing';
}
