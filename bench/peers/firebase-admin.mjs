/**
 * firebase-admin's `sendEach`, 500 messages a call as its documentation has it; every call opens a connection of its own. The
 * library's address is a constant, so the connection that it asks `node:http2` for is led to the simulator; nothing else is
 * changed. The access token comes through the credential interface, once: the library keeps it for its hour.
 */
import { sign } from 'node:crypto';
import { readFileSync } from 'node:fs';
import http2 from 'node:http2';
import { request } from 'node:https';
import { connect as connectTls } from 'node:tls';
import { initializeApp } from 'firebase-admin/app';
import { getMessaging } from 'firebase-admin/messaging';
import { readTask, runSender } from '../measure.ts';

const task = readTask();
const ca = readFileSync(task.ca_file);
const account = JSON.parse(readFileSync(task.service_account_file, 'utf8'));
const { hostname, port } = new URL(task.url);

const connect = http2.connect;
http2.connect = (authority, options) =>
  connect(authority, {
    ...options,
    createConnection: () => connectTls({ host: hostname, port: Number(port), ca, ALPNProtocols: ['h2'] }),
  });

const app = initializeApp({ projectId: account.project_id, credential: { getAccessToken } });
const messaging = getMessaging(app);
const message = toSdk(JSON.parse(task.payload));

const callsAtOnce = 2;
const messagesPerCall = 500;
await runSender(task, async (from, to) => {
  let next = from;
  let accepted = 0;
  const sendOnAndOn = async () => {
    while (next < to) {
      const tokens = task.device_tokens.slice(next, Math.min(to, next + messagesPerCall));
      next += tokens.length;
      const { successCount, responses } = await messaging.sendEach(tokens.map((token) => ({ ...message, token })));
      if (successCount < tokens.length) throw responses.find(({ success }) => !success).error;
      accepted += successCount;
    }
  };
  await Promise.all(Array.from({ length: callsAtOnce }, sendOnAndOn));
  return accepted;
});
process.exit();

/** The SDK's spelling of what it sends: the request comes out the same. Its types know `high` alone, it passes on `HIGH`. */
function toSdk({ android, webpush, ...rest }) {
  const { notification_count: notificationCount, ...notification } = android.notification;
  return {
    ...rest,
    android: {
      ...android,
      ttl: Number.parseInt(android.ttl, 10) * 1000,
      notification: { ...notification, notificationCount },
    },
    webpush: { headers: webpush.headers, notification: webpush.notification, fcmOptions: webpush.fcm_options },
  };
}

async function getAccessToken() {
  const part = (value) => Buffer.from(JSON.stringify(value)).toString('base64url');
  const iat = Math.floor(Date.now() / 1000);
  const claims = {
    iss: account.client_email,
    aud: account.token_uri,
    scope: 'https://www.googleapis.com/auth/firebase.messaging',
    iat,
    exp: iat + 3600,
  };
  const unsigned = `${part({ alg: 'RS256', typ: 'JWT', kid: account.private_key_id })}.${part(claims)}`;
  const assertion = `${unsigned}.${sign('sha256', Buffer.from(unsigned), account.private_key).toString('base64url')}`;
  const form = new URLSearchParams({ grant_type: 'urn:ietf:params:oauth:grant-type:jwt-bearer', assertion });
  return new Promise((resolve, reject) => {
    const headers = { 'content-type': 'application/x-www-form-urlencoded' };
    const post = request(account.token_uri, { method: 'POST', ca, headers }, (response) => {
      let text = '';
      response.on('data', (chunk) => {
        text += chunk;
      });
      response.on('end', () => (response.statusCode === 200 ? resolve(JSON.parse(text)) : reject(new Error(text))));
    });
    post.on('error', reject);
    post.end(form.toString());
  });
}
