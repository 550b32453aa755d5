/** Correct senders in a few lines, on clients that are not ours: node:http2 and node:https. */
import { createPrivateKey, sign } from 'node:crypto';
import { once } from 'node:events';
import { readFileSync } from 'node:fs';
import { type ClientHttp2Session, connect } from 'node:http2';
import { Agent, request as httpsRequest } from 'node:https';
import { importPKCS8, SignJWT } from 'jose';
import type { SimulatorAddresses } from '../../simulator/simulator.ts';

export interface Answer {
  /** Undefined when the stream ended without one. */
  status: number | undefined;
  headers: Record<string, string>;
  body: string;
  /** The RST_STREAM code that the stream ended with. */
  rstCode: number;
}

export async function openSession(url: string, addresses: SimulatorAddresses): Promise<ClientHttp2Session> {
  const session = connect(url, { ca: readFileSync(addresses.files.caCertificatePath) });
  // What a broken connection means is seen on its streams.
  session.on('error', () => {});
  await once(session, 'remoteSettings');
  return session;
}

export function send(
  session: ClientHttp2Session,
  headers: Record<string, string | string[]>,
  body: string | Buffer = '',
): Promise<Answer> {
  return new Promise((resolve) => {
    const stream = session.request(headers);
    const answer: Answer = { status: undefined, headers: {}, body: '', rstCode: 0 };
    stream.setEncoding('utf8');
    stream.on('response', (received) => {
      answer.status = received[':status'];
      for (const [name, value] of Object.entries(received)) answer.headers[name] = String(value);
    });
    stream.on('data', (part: string) => {
      answer.body += part;
    });
    stream.on('error', () => {});
    stream.on('close', () => resolve({ ...answer, rstCode: stream.rstCode ?? 0 }));
    stream.end(body);
  });
}

export interface ProviderTokenOptions {
  keyId?: string;
  teamId?: string;
  /** UNIX seconds. */
  issuedAt?: number;
}

export function createProviderToken(addresses: SimulatorAddresses, options: ProviderTokenOptions = {}): string {
  const { files } = addresses;
  const part = (value: object) => Buffer.from(JSON.stringify(value)).toString('base64url');
  const header = part({ alg: 'ES256', kid: options.keyId ?? files.apnsKeyId });
  const issuedAt = options.issuedAt ?? Math.floor(Date.now() / 1000);
  const claims = part({ iss: options.teamId ?? files.apnsTeamId, iat: issuedAt });
  const key = createPrivateKey(readFileSync(files.apnsKeyPath));
  const signature = sign('sha256', Buffer.from(`${header}.${claims}`), { key, dsaEncoding: 'ieee-p1363' });
  return `${header}.${claims}.${signature.toString('base64url')}`;
}

/** A request that APNs takes; a header given as undefined is left out. */
export function apnsHeaders(
  addresses: SimulatorAddresses,
  deviceToken: string,
  changes: Record<string, string | undefined> = {},
): Record<string, string> {
  const headers: Record<string, string | undefined> = {
    ':method': 'POST',
    ':path': `/3/device/${deviceToken}`,
    'apns-topic': addresses.apnsTopic,
    'apns-push-type': 'alert',
    'apns-priority': '10',
    'apns-expiration': '0',
    'apns-id': '0198c0de-0001-8abc-8def-00000000002a',
    ...changes,
  };
  return Object.fromEntries(Object.entries(headers).filter(([, value]) => value !== undefined)) as Record<
    string,
    string
  >;
}

export interface AssertionOptions {
  issuer?: string;
  audience?: string;
  scope?: string;
  issuedAt?: number;
  expiresAt?: number;
}

export async function createAssertion(addresses: SimulatorAddresses, options: AssertionOptions = {}): Promise<string> {
  const account = JSON.parse(readFileSync(addresses.files.fcmServiceAccountPath, 'utf8'));
  const issuedAt = options.issuedAt ?? Math.floor(Date.now() / 1000);
  return new SignJWT({ scope: options.scope ?? 'https://www.googleapis.com/auth/firebase.messaging' })
    .setProtectedHeader({ alg: 'RS256', typ: 'JWT', kid: account.private_key_id })
    .setIssuer(options.issuer ?? account.client_email)
    .setAudience(options.audience ?? account.token_uri)
    .setIssuedAt(issuedAt)
    .setExpirationTime(options.expiresAt ?? issuedAt + 3600)
    .sign(await importPKCS8(account.private_key, 'RS256'));
}

/** One HTTP/1.1 request over TLS. */
export function post(
  url: string,
  addresses: SimulatorAddresses,
  body: string,
  headers: Record<string, string> = {},
): Promise<{ status: number; headers: Record<string, unknown>; body: string }> {
  return new Promise((resolve, reject) => {
    const agent = new Agent({ ca: readFileSync(addresses.files.caCertificatePath), keepAlive: false });
    const request = httpsRequest(url, { method: 'POST', agent, headers }, (response) => {
      let text = '';
      response.setEncoding('utf8');
      response.on('data', (part: string) => {
        text += part;
      });
      response.on('end', () => resolve({ status: response.statusCode ?? 0, headers: response.headers, body: text }));
    });
    request.on('error', reject);
    request.end(body);
  });
}

export function postAssertion(addresses: SimulatorAddresses, assertion: string, grantType?: string) {
  const form = new URLSearchParams({
    grant_type: grantType ?? 'urn:ietf:params:oauth:grant-type:jwt-bearer',
    assertion,
  });
  return post(addresses.oauthTokenUrl, addresses, form.toString(), {
    'content-type': 'application/x-www-form-urlencoded',
  });
}

export async function fetchAccessToken(addresses: SimulatorAddresses): Promise<string> {
  const answer = await postAssertion(addresses, await createAssertion(addresses));
  return JSON.parse(answer.body).access_token;
}

export function fcmHeaders(accessToken: string, project = 'carillon-demo'): Record<string, string> {
  return {
    ':method': 'POST',
    ':path': `/v1/projects/${project}/messages:send`,
    authorization: `Bearer ${accessToken}`,
    'content-type': 'application/json',
  };
}
