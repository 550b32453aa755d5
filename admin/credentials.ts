import { type Command, Option } from 'commander';
import type { JsonObject } from '../domain/json.ts';
import { word } from './arguments.ts';
import { needMasterKeys } from './master-keys.ts';
import { operate } from './operate.ts';
import { plain, shown, table } from './output.ts';
import { listItems, pathOf } from './pages.ts';
import { type OptionNames, Refusal } from './refusal.ts';
import { readSecret } from './secret-file.ts';

interface Files {
  apnsKey?: string;
  keyId?: string;
  teamId?: string;
  apnsCertificate?: string;
  passwordFile?: string;
  fcmServiceAccount?: string;
  fcmProject?: string;
}

export function addCredentials(program: Command): void {
  const credentials = program.command('credentials').description('what an app proves itself with to APNs and FCM');

  credentials
    .command('list')
    .description('list the credentials of an app, newest first; never what is secret in them')
    .requiredOption('--app <name>')
    .addHelpText('after', '\nExample: npm run admin -- credentials list --app shop')
    .action(
      operate(async (installation, { app }: { app: string }) => {
        const found = await listItems(installation, pathOf(app, 'credentials'), 'credentials');
        return shown(found, table(found, columns, `The app ${app} has no credentials.`));
      }),
    );

  const kinds = ['apnsKey', 'apnsCertificate', 'fcmServiceAccount'];
  const kindOption = (index: number, flags: string, description: string) =>
    new Option(flags, description).conflicts(kinds.filter((_, i) => i !== index));
  credentials
    .command('add')
    .description('store a credential, which is used from then on; files may be - for standard input')
    .requiredOption('--app <name>')
    .addOption(kindOption(0, '--apns-key <file>', "Apple's .p8 file"))
    .option('--key-id <id>', 'of the APNs key', word)
    .option('--team-id <id>', 'of the APNs key', word)
    .addOption(kindOption(1, '--apns-certificate <file>', 'a certificate with its key, as .p12 or PEM'))
    .option('--password-file <file>', 'with the password of the certificate')
    .addOption(kindOption(2, '--fcm-service-account <file>', 'JSON, from the Firebase console'))
    .option('--fcm-project <id>', "default: the service account's", word)
    .option('--verify', 'ask the provider, by a request that sends nothing')
    .addHelpText(
      'after',
      '\nExample: npm run admin -- credentials add --app shop --apns-key AuthKey_ABC123DEFG.p8 --key-id ABC123DEFG --team-id DEF123GHIJ',
    )
    .action(
      operate(async ({ ask, masterKeys }, { app, verify, ...files }: Files & { app: string; verify?: boolean }) => {
        needMasterKeys(masterKeys);
        const path = `${pathOf(app, 'credentials')}${verify ? '?verify=provider' : ''}`;
        const credential = await ask('POST', path, await bodyOf(files), optionNames(files));
        return shown(credential, `${credential.id}`, `The app ${app} sends by this ${credential.kind} from now on.`);
      }),
    );

  credentials
    .command('revoke')
    .description('nobody sends with it any more, and its secret is gone')
    .argument('<id>')
    .requiredOption('--app <name>')
    .addHelpText(
      'after',
      '\nExample: npm run admin -- credentials revoke --app shop 019c0000-0000-7000-8000-000000000000',
    )
    .action(
      operate(async ({ ask }, id: string, { app }: { app: string }) => {
        await ask('DELETE', pathOf(app, 'credentials', id));
        return shown({ id }, `The credential ${id} is revoked.`);
      }),
    );
}

/** A certificate has its key in the same file. */
function optionNames({ apnsCertificate }: Files): OptionNames {
  return {
    private_key: apnsCertificate === undefined ? '--apns-key' : '--apns-certificate',
    certificate: '--apns-certificate',
    password: '--password-file',
    service_account: '--fcm-service-account',
    project_id: '--fcm-project',
  };
}

/** What does not go together the intake of credentials refuses, which knows each kind. */
async function bodyOf(files: Files): Promise<JsonObject> {
  const { apnsKey, apnsCertificate, passwordFile, fcmServiceAccount, ...texts } = files;
  if ([apnsKey, apnsCertificate, fcmServiceAccount].every((file) => file === undefined)) {
    throw new Refusal('--apns-key, --apns-certificate or --fcm-service-account: one of them is needed.', 2);
  }
  if (apnsCertificate === '-' && passwordFile === '-') {
    throw new Refusal('--password-file: standard input holds the certificate already.', 2);
  }
  return {
    ...(apnsKey && { private_key: await readSecret('--apns-key', apnsKey) }),
    ...(texts.keyId && { key_id: texts.keyId }),
    ...(texts.teamId && { team_id: texts.teamId }),
    ...(apnsCertificate && { certificate: await readSecret('--apns-certificate', apnsCertificate) }),
    // Editors end a file with a line break.
    ...(passwordFile && { password: (await readSecret('--password-file', passwordFile)).replace(/\r?\n$/, '') }),
    ...(fcmServiceAccount && { service_account: await readSecret('--fcm-service-account', fcmServiceAccount) }),
    ...(texts.fcmProject && { project_id: texts.fcmProject }),
  };
}

const columns = {
  id: ({ id }: JsonObject) => id!,
  kind: ({ kind }: JsonObject) => kind!,
  details: ({ details }: JsonObject) =>
    Object.values(details as JsonObject)
      .map(plain)
      .join(' '),
  fingerprint: ({ fingerprint }: JsonObject) => (fingerprint as string).slice(0, 12),
  expires: ({ expires_at }: JsonObject) => expires_at!,
  'last use': ({ last_used_at }: JsonObject) => last_used_at!,
  'last refusal': ({ last_refusal }: JsonObject) => last_refusal!,
  state: ({ revoked_at, in_use }: JsonObject) => (revoked_at !== null ? 'revoked' : in_use ? 'in use' : 'kept'),
};
