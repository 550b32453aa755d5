/** Starts a stack on the folder given, prints what a test needs to know of it, then waits to be killed. */
import { startStack } from '../../local/stack.ts';

const stack = await startStack({ directory: process.argv[2]!, ports: 'free', hasWebUi: false });
const { postgres, temporal, api, workers } = stack.processes;
const pids = [postgres, temporal, api, ...workers].map((process) => process?.pid);
console.log(JSON.stringify({ pids, apiKey: stack.apiKey ?? null }));
