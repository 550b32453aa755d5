import { Command } from 'commander';
import { addApps } from './apps.ts';
import { word } from './arguments.ts';
import { addAudit } from './audit.ts';
import { addCredentials } from './credentials.ts';
import { addKeys } from './keys.ts';
import { addMasterKeys } from './master-keys.ts';
import { addRates } from './rates.ts';

/** `npm run admin -- …`: what operators do, where the database is at hand. Ends no process: it throws. */
export function createProgram(): Command {
  const program = new Command('npm run admin --')
    .description('Looks after an installation: that of DATABASE_URL, or of the `npm start` that runs here.')
    .option('--json', 'for programs')
    .option('--as <name>', 'who does it, as the audit tells it; default: the user of this machine', word)
    .addHelpText('after', '\nExample: npm run admin -- apps create shop --apns-topic com.example.shop')
    .configureHelp({ showGlobalOptions: true })
    .configureOutput({ outputError: (text, write) => write(sentence(text)) })
    .showHelpAfterError('With --help it says what it takes.')
    .exitOverride();
  for (const add of [addApps, addKeys, addCredentials, addRates, addAudit, addMasterKeys]) add(program);
  return program;
}

/** `error: unknown option '--x'` as the other programs say it. */
function sentence(text: string): string {
  const bare = text.replace(/^error: /, '').trimEnd();
  return `${bare[0]!.toUpperCase()}${bare.slice(1)}${/[.)?]$/.test(bare) ? '' : '.'}\n`;
}
