import { type Command, Option } from 'commander';
import { providerNames } from '../domain/device.ts';
import type { JsonObject } from '../domain/json.ts';
import { wholeNumber } from './arguments.ts';
import type { Installation } from './installation.ts';
import { operate } from './operate.ts';
import { shown, table } from './output.ts';
import { pathOf } from './pages.ts';

export function addRates(program: Command): void {
  const rates = program.command('rates').description('how fast an app may send, over all workers');

  rates
    .command('list')
    .description('show the rates of an app')
    .requiredOption('--app <name>')
    .addHelpText('after', '\nExample: npm run admin -- rates list --app shop')
    .action(
      operate(async ({ ask }, { app }: { app: string }) => {
        const found = await ask('GET', pathOf(app, 'rates'));
        const rows = Object.entries(found).map(([provider, rate]) => ({ provider, ...(rate as JsonObject) }));
        const columns = {
          provider: ({ provider }: JsonObject) => provider!,
          'devices per second': ({ per_second }: JsonObject) => per_second ?? 'no limit',
        };
        return shown(found, table(rows, columns, ''));
      }),
    );

  rates
    .command('set')
    .description('limit a provider; what is being sent obeys at once')
    .requiredOption('--app <name>')
    .addOption(providerOption())
    .requiredOption('--per-second <n>', 'devices per second', wholeNumber)
    .addHelpText('after', '\nExample: npm run admin -- rates set --app shop --provider apns --per-second 5000')
    .action(operate(put));

  rates
    .command('clear')
    .description('lift the limit of a provider')
    .requiredOption('--app <name>')
    .addOption(providerOption())
    .addHelpText('after', '\nExample: npm run admin -- rates clear --app shop --provider apns')
    .action(operate(put));
}

function providerOption(): Option {
  return new Option('--provider <name>').choices(providerNames).makeOptionMandatory();
}

async function put({ ask }: Installation, given: { app: string; provider: string; perSecond?: number }) {
  const { app, provider, perSecond: per_second = null } = given;
  const rate = await ask('PUT', pathOf(app, 'rates', provider), { per_second });
  const limit = per_second === null ? 'no limit' : `${per_second} devices per second`;
  return shown(rate, `The app ${app} sends by ${provider} with ${limit}.`);
}
