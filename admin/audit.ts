import type { Command } from 'commander';
import type { JsonObject } from '../domain/json.ts';
import { instantOrAge, wholeNumber, word } from './arguments.ts';
import { operate } from './operate.ts';
import { plain, table } from './output.ts';
import { listItems } from './pages.ts';

interface Search {
  app?: string;
  actor?: string;
  action?: string;
  since?: string;
  limit: number;
}

export function addAudit(program: Command): void {
  program
    .command('audit')
    .description('who changed what, newest first; with --json a line for each entry')
    .option('--app <name>', 'of this app alone', word)
    .option('--actor <id>', 'id of a key, subject of a JWT, name of an operator', word)
    .option('--action <name>', 'such as key.create', word)
    .option('--since <instant>', 'such as 2026-12-24T18:00:00Z, 2026-12-24 or 7d', instantOrAge)
    .option('--limit <n>', 'entries at most', wholeNumber, 50)
    .addHelpText('after', '\nExample: npm run admin -- audit --app shop --since 7d')
    .action(
      operate(async (installation, { limit, ...search }: Search) => {
        const found = await listItems(installation, '/v1/audit', 'entries', { ...search }, limit);
        return {
          text: table(found, columns, 'There are no such entries.'),
          json: found.map((entry) => JSON.stringify(entry)).join('\n'),
        };
      }),
    );
}

const columns = {
  at: ({ at }: JsonObject) => at!,
  app: ({ app }: JsonObject) => app!,
  by: ({ actor }: JsonObject) =>
    Object.values(actor as JsonObject)
      .map(plain)
      .join(' '),
  action: ({ action }: JsonObject) => action!,
  what: ({ target }: JsonObject) =>
    Object.values(target as JsonObject)
      .map(plain)
      .join(' '),
  changes: ({ changes }: JsonObject) => changes!,
};
