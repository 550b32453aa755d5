/** @parse/node-apn in its cheapest use: one notification for many recipients, who then share their headers. */
import { readFileSync } from 'node:fs';
import apn from '@parse/node-apn';
import { readTask, runSender } from '../measure.ts';

const task = readTask();
const { hostname, port } = new URL(task.url);
const provider = new apn.Provider({
  address: hostname,
  port: Number(port),
  ca: readFileSync(task.ca_file),
  token: { key: task.key_file, keyId: task.key_id, teamId: task.team_id },
  // The default of 5 s is for a phone's owner who waits; a busy machine must not fail the bench.
  requestTimeout: 15_000,
});
const notification = new apn.Notification();
notification.topic = task.topic;
notification.pushType = task.headers['apns-push-type'];
notification.priority = Number(task.headers['apns-priority']);
notification.expiry = Number(task.headers['apns-expiration']);
notification.collapseId = task.headers['apns-collapse-id'];
notification.rawPayload = JSON.parse(task.payload);

// Batches are small enough that about as many requests are in flight all the time as with the other senders.
const batches = 10;
const batchSize = task.in_flight / batches;
await runSender(task, async (from, to) => {
  let next = from;
  let accepted = 0;
  const sendOnAndOn = async () => {
    while (next < to) {
      const batch = task.device_tokens.slice(next, Math.min(to, next + batchSize));
      next += batch.length;
      const { sent, failed } = await provider.send(notification, batch);
      if (failed.length > 0) throw new Error(`not accepted: ${JSON.stringify(failed[0])} ${failed[0].error ?? ''}`);
      accepted += sent.length;
    }
  };
  await Promise.all(Array.from({ length: batches }, sendOnAndOn));
  return accepted;
});
provider.shutdown();
