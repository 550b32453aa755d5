/** `npm start`: the whole of Carillon in one terminal, data in `.carillon/`, until Ctrl-C. */
import { readCommandLine } from '../domain/command-line.ts';
import { stopSignal } from '../domain/stop-signal.ts';
import { describeStack } from './banner.ts';
import { stateDirectory } from './paths.ts';
import { startStack } from './stack.ts';
import type { StackPorts } from './stack-context.ts';

const usage = `npm start -- [options]

  --port N               of the API; default PORT, then 8080
  --temporal-port N      default 7233
  --temporal-ui-port N   default 8233
  --postgres-port N      default 5433
  --workers N            worker processes; default 1
  --deno                 serve the API by Deno instead of Node

DATABASE_URL and TEMPORAL_ADDRESS replace the embedded parts; APNS_… and FCM_… credentials replace the simulator.`;

const { values, wholeNumber, refuse } = readCommandLine(usage, {
  port: { type: 'string' },
  'temporal-port': { type: 'string' },
  'temporal-ui-port': { type: 'string' },
  'postgres-port': { type: 'string' },
  workers: { type: 'string' },
  deno: { type: 'boolean' },
});
const [smallest, largest] = [1, 65_535];
const ports: StackPorts = {
  ...known('api', wholeNumber('port', smallest, largest) ?? portFromEnvironment()),
  ...known('temporal', wholeNumber('temporal-port', smallest, largest)),
  ...known('temporalUi', wholeNumber('temporal-ui-port', smallest, largest)),
  ...known('postgres', wholeNumber('postgres-port', smallest, largest)),
};
const workers = wholeNumber('workers', 1, 64) ?? 1;
const signal = stopSignal();
try {
  const stack = await startStack({
    directory: stateDirectory,
    usesOuterParts: true,
    isKeptAlive: true,
    ports,
    workers,
    apiRuntime: values.deno ? 'deno' : 'node',
    signal,
    say: console.log,
  });
  console.log(`\nCarillon is running.\n\n${describeStack(stack)}`);
  if (stack.apiKey) {
    console.log(
      `\n  API key            ${stack.apiKey}\n  (made by this first start; only its hash is kept, so note it down. Another one: npm run admin -- keys create --help)`,
    );
  }
  console.log('\nCtrl-C stops everything in order.');
  await new Promise((resolve) => signal.addEventListener('abort', resolve));
  console.log('\nStopping …');
  await stack.stop();
  console.log('Stopped.');
} catch (error) {
  if (!signal.aborted) {
    console.error(error instanceof Error ? error.message : error);
    process.exitCode = 1;
  }
}

function known(name: keyof StackPorts, port: number | undefined): StackPorts {
  return port === undefined ? {} : { [name]: port };
}

function portFromEnvironment(): number | undefined {
  const { PORT } = process.env;
  if (!PORT) return undefined;
  const port = /^\d+$/.test(PORT) ? Number(PORT) : 0;
  if (port >= smallest && port <= largest) return port;
  return refuse(`PORT must be a whole number from ${smallest} to ${largest}, not "${PORT}".`);
}
