/** Node's own HTTP/2 client with as little around it as a sender needs. */
import { readFileSync } from 'node:fs';
import { connect } from 'node:http2';
import { apnsId } from '../../providers/apns/apns-id.ts';
import { inParallel, readTask, runSender } from '../measure.ts';

const task = readTask();
const session = connect(task.url, { ca: readFileSync(task.ca_file) });
const shared = { ':method': 'POST', ...task.headers, authorization: `bearer ${task.provider_token}` };
await runSender(
  task,
  inParallel(
    task.in_flight,
    (n) =>
      new Promise((resolve, reject) => {
        const stream = session.request({
          ...shared,
          ':path': `/3/device/${task.device_tokens[n]}`,
          'apns-id': apnsId(task.notification_id, n),
        });
        let status: number | undefined;
        let text = '';
        stream.setEncoding('utf8');
        stream.on('response', (headers) => {
          status = headers[':status'];
        });
        stream.on('data', (part: string) => {
          text += part;
        });
        stream.on('error', reject);
        stream.on('end', () => resolve(status === 200 ? undefined : { status, text }));
        stream.end(task.payload);
      }),
  ),
);
session.close();
