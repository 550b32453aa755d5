/** `npm start`: the whole of Carillon in one terminal, data in `.carillon/`, until Ctrl-C. */
import { parseArgs } from 'node:util';
import { describeStack } from './banner.ts';
import { stateDirectory } from './paths.ts';
import { startStack } from './stack.ts';
import type { StackPorts } from './stack-context.ts';
import { stopSignal } from './stop-signal.ts';

const usage = `npm start -- [options]

  --port N               of the API; default PORT, then 8080
  --temporal-port N      default 7233
  --temporal-ui-port N   default 8233
  --postgres-port N      default 5433
  --workers N            worker processes; default 1
  --deno                 serve the API by Deno instead of Node

DATABASE_URL and TEMPORAL_ADDRESS replace the embedded parts; APNS_… and FCM_… credentials replace the simulator.`;

const { values } = parseArgs({
  options: {
    port: { type: 'string' },
    'temporal-port': { type: 'string' },
    'temporal-ui-port': { type: 'string' },
    'postgres-port': { type: 'string' },
    workers: { type: 'string' },
    deno: { type: 'boolean' },
    help: { type: 'boolean' },
  },
});
if (values.help) {
  console.log(usage);
  process.exit(0);
}

const ports: StackPorts = {
  ...withNumber('api', values.port ?? process.env.PORT),
  ...withNumber('temporal', values['temporal-port']),
  ...withNumber('temporalUi', values['temporal-ui-port']),
  ...withNumber('postgres', values['postgres-port']),
};
const signal = stopSignal();
try {
  const stack = await startStack({
    directory: stateDirectory,
    usesOuterParts: true,
    isKeptAlive: true,
    ports,
    workers: Number(values.workers ?? 1),
    apiRuntime: values.deno ? 'deno' : 'node',
    signal,
    say: console.log,
  });
  console.log(`\nCarillon is running.\n\n${describeStack(stack)}`);
  if (stack.apiKey) {
    console.log(
      `\n  API key            ${stack.apiKey}\n  (made by this first start; only its hash is kept, so note it down)`,
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

function withNumber(name: keyof StackPorts, text: string | undefined): StackPorts {
  if (!text) return {};
  const port = Number(text);
  if (Number.isInteger(port) && port > 0 && port < 65_536) return { [name]: port };
  console.error(`The port of ${name} must be a number from 1 to 65535, not "${text}".`);
  process.exit(1);
}
