/** undici's client over HTTP/2, the way its documentation has it: `request`, then the body read to its end. */
import { readFileSync } from 'node:fs';
import { Client } from 'undici';
import { apnsId } from '../../providers/apns/apns-id.ts';
import { inParallel, readTask, runSender } from '../measure.ts';

const task = readTask();
const client = new Client(task.url, {
  connect: { ca: readFileSync(task.ca_file) },
  allowH2: true,
  pipelining: task.in_flight,
  h2Options: { maxConcurrentStreams: task.in_flight },
});
const shared = { ...task.headers, authorization: `bearer ${task.provider_token}` };
await runSender(
  task,
  inParallel(task.in_flight, async (n) => {
    const { statusCode, body } = await client.request({
      method: 'POST',
      path: `/3/device/${task.device_tokens[n]}`,
      headers: { ...shared, 'apns-id': apnsId(task.notification_id, n) },
      body: task.payload,
    });
    const text = await body.text();
    return statusCode === 200 ? undefined : { statusCode, text };
  }),
);
await client.close();
