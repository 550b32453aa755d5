/** Stops as the programs of the README do: when asked, or when whoever runs it is gone. Says each step. */
import { stopSignal } from '../../domain/stop-signal.ts';

const stopping = stopSignal();
stopping.addEventListener('abort', () => {
  console.log(`stopping: ${stopping.reason.message}`);
  // What a stack takes to end in order.
  setTimeout(() => {
    console.log('stopped');
    process.exit(0);
  }, 100);
});
setInterval(() => undefined, 1_000);
console.log(`running ${process.pid}`);
