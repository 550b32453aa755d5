import process from 'node:process';
import type { Command } from 'commander';
import { type Installation, openInstallation } from './installation.ts';
import type { Shown } from './output.ts';

/** The action of a command that needs the installation: opens it, shows what `run` returns, and closes it. */
export function operate<Args extends unknown[]>(run: (installation: Installation, ...args: Args) => Promise<Shown>) {
  return async (...args: unknown[]): Promise<void> => {
    const command = args.at(-1) as Command;
    const installation = await openInstallation(command.optsWithGlobals<{ as?: string }>().as);
    try {
      show(command, await run(installation, ...(args.slice(0, -1) as Args)));
    } finally {
      await installation.close();
    }
  };
}

export function show(command: Command, { text, json, note }: Shown): void {
  const isJson = command.optsWithGlobals<{ json?: boolean }>().json === true;
  const output = isJson ? json : text;
  if (output !== '') process.stdout.write(`${output}\n`);
  if (note !== undefined && !isJson) process.stderr.write(`${note}\n`);
}
