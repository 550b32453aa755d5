import { type Command, Option } from 'commander';
import { apnsEnvironments } from '../domain/device.ts';
import type { JsonObject } from '../domain/json.ts';
import { inDoubtPolicies } from '../domain/notification-state.ts';
import { none, orNone, wholeNumber, word, words } from './arguments.ts';
import { operate } from './operate.ts';
import { fields, shown, table } from './output.ts';
import { listItems, pathOf } from './pages.ts';

/** As typed; `none` clears. */
interface Settings {
  apnsTopic?: string;
  apnsTopics?: string[] | typeof none;
  apnsEnvironment?: string;
  fcmProject?: string;
  ttl?: number | typeof none;
  inDoubtPolicy?: string;
  maxDevices?: number | typeof none;
}

const optionNames = {
  name: '<name>',
  fcm_project_id: '--fcm-project',
  default_ttl_seconds: '--ttl',
  default_in_doubt_policy: '--in-doubt-policy',
};

export function addApps(program: Command): void {
  const apps = program.command('apps').description('the mobile apps of this installation');

  apps
    .command('list')
    .description('list all apps, oldest first')
    .addHelpText('after', '\nExample: npm run admin -- apps list --json')
    .action(
      operate(async (installation) => {
        const found = await listItems(installation, '/v1/apps', 'apps');
        return shown(found, table(found, columns, 'There are no apps.'));
      }),
    );

  apps
    .command('show')
    .description('show an app, and how far its deletion is')
    .argument('<name>')
    .addHelpText('after', '\nExample: npm run admin -- apps show shop')
    .action(
      operate(async ({ ask }, name: string) => {
        const app = await ask('GET', pathOf(name));
        return shown(app, fields(app));
      }),
    );

  withSettings(apps.command('create'))
    .description('create an app')
    .argument('<name>', 'in URLs and claims, for ever: a-z, 0-9 and -')
    .addHelpText(
      'after',
      '\nExample: npm run admin -- apps create shop --apns-topic com.example.shop --fcm-project shop-4711',
    )
    .action(
      operate(async ({ ask }, name: string, settings: Settings) => {
        const app = await ask('POST', '/v1/apps', { name, ...bodyOf(settings) }, optionNames);
        return shown(app, `The app ${name} is created.`);
      }),
    );

  withSettings(apps.command('update'))
    .description('change settings of an app; none clears one')
    .argument('<name>')
    .addHelpText('after', '\nExample: npm run admin -- apps update shop --ttl 3600 --max-devices none')
    .action(
      operate(async ({ ask }, name: string, settings: Settings) => {
        const app = await ask('PATCH', pathOf(name), bodyOf(settings), optionNames);
        return shown(app, fields(app));
      }),
    );

  apps
    .command('delete')
    .description('delete an app: the workers do it, "apps show" tells how far they are')
    .argument('<name>')
    .option('--confirm <name>', 'the name again, where the app has devices or sends', word)
    .addHelpText('after', '\nExample: npm run admin -- apps delete shop --confirm shop')
    .action(
      operate(async ({ ask }, name: string, { confirm }: { confirm?: string }) => {
        const query = confirm === undefined ? '' : `?${new URLSearchParams({ confirm })}`;
        const app = await ask('DELETE', `${pathOf(name)}${query}`);
        return shown(app, `The app ${name} is being deleted; its keys and credentials are revoked.`);
      }),
    );
}

function withSettings(command: Command): Command {
  return command
    .option('--apns-topic <topic>', 'the bundle id', orNone(word))
    .option(
      '--apns-topics <list>',
      'further bundle ids that a message may name, with commas between them',
      orNone(words),
    )
    .addOption(new Option('--apns-environment <name>', 'of devices that name none').choices(apnsEnvironments))
    .option('--fcm-project <id>', "default: the service account's", orNone(word))
    .option('--ttl <seconds>', 'of messages that name none', orNone(wholeNumber))
    .addOption(
      new Option('--in-doubt-policy <policy>', 'of notifications and messages that name none').choices(inDoubtPolicies),
    )
    .option('--max-devices <n>', 'further registrations are refused', orNone(wholeNumber));
}

/** What is not given is left out. */
function bodyOf(settings: Settings): object {
  const body = {
    apns_topic: settings.apnsTopic,
    apns_topics: settings.apnsTopics,
    apns_environment: settings.apnsEnvironment,
    fcm_project_id: settings.fcmProject,
    default_ttl_seconds: settings.ttl,
    default_in_doubt_policy: settings.inDoubtPolicy,
    max_devices: settings.maxDevices,
  };
  return Object.fromEntries(Object.entries(body).map(([field, value]) => [field, value === none ? null : value]));
}

const columns = {
  name: ({ name }: JsonObject) => name!,
  'apns topic': ({ apns_topic }: JsonObject) => apns_topic!,
  'fcm project': ({ fcm_project_id }: JsonObject) => fcm_project_id!,
  created: ({ created_at }: JsonObject) => created_at!,
  state: ({ deletion }: JsonObject) => (deletion === null ? 'in use' : 'being deleted'),
};
