/** The fake OAuth token endpoint: service account assertions (RFC 7523) in, opaque access tokens out. */
import type { KeyObject } from 'node:crypto';
import type { IncomingMessage, ServerResponse } from 'node:http';
import { createServer } from 'node:https';
import type { AddressInfo } from 'node:net';
import { decodeProtectedHeader, errors, jwtVerify } from 'jose';
import { htmlPage } from '../actions.ts';
import type { Certificate } from '../certificates.ts';
import { HttpDate, type SimulatorClock } from '../clock.ts';
import type { AccessTokens } from './access-tokens.ts';

export const oauthFaults = ['invalid_grant', '429', '503', 'html', 'slow', 'hang', 'wrong_json', 'no_expiry'] as const;
export type OauthFault = (typeof oauthFaults)[number];

export interface OauthServerOptions {
  host: string;
  port: number;
  certificate: Certificate;
  authority: Certificate;
  clock: SimulatorClock;
  accessTokens: AccessTokens;
  clientEmail: string;
  privateKeyId: string;
  publicKey: KeyObject;
}

export interface OauthServer {
  readonly port: number;
  /** Null: no fault. `slow` answers after 3 s. */
  fault: OauthFault | null;
  /** All requests, refused ones included. */
  readonly requests: number;
  close(): Promise<void>;
}

const grantType = 'urn:ietf:params:oauth:grant-type:jwt-bearer';
const scope = 'https://www.googleapis.com/auth/firebase.messaging';
const googleTokenUri = 'https://oauth2.googleapis.com/token';
const slowMs = 3000;
const skewMessage =
  'Invalid JWT: Token must be a short-lived token (60 minutes) and in a reasonable timeframe. Check your iat and exp values in the JWT claim.';

class OauthError extends Error {
  readonly error: string;

  constructor(error: string, description: string) {
    super(description);
    this.name = 'OauthError';
    this.error = error;
  }
}

export async function startOauthServer(options: OauthServerOptions): Promise<OauthServer> {
  const date = new HttpDate(options.clock);
  const state = { fault: null as OauthFault | null, requests: 0 };

  async function respond(request: IncomingMessage, response: ServerResponse): Promise<void> {
    state.requests++;
    // By the simulator's clock, so that a sender can measure the gap to its own.
    response.setHeader('date', date.text());
    const form = new URLSearchParams(await readText(request));
    const fault = state.fault;
    if (fault === 'hang') return;
    if (fault === 'slow') await new Promise((resolve) => setTimeout(resolve, slowMs));
    if (fault === '429') return sendJson(response, 429, { error: 'rate_limit_exceeded' });
    if (fault === '503') return sendJson(response, 503, { error: 'backend_error' });
    if (fault === 'html') return sendText(response, 502, 'text/html; charset=UTF-8', htmlPage(502));
    if (fault === 'wrong_json') return sendText(response, 200, 'application/json', '{"access_token":');
    try {
      if (request.method !== 'POST' || request.url !== '/token') {
        return sendText(response, 404, 'text/html; charset=UTF-8', htmlPage(404));
      }
      if (fault === 'invalid_grant') throw new OauthError('invalid_grant', 'Invalid JWT Signature.');
      if (form.get('grant_type') !== grantType) {
        throw new OauthError('unsupported_grant_type', `Invalid grant_type: ${form.get('grant_type') ?? ''}`);
      }
      await verifyAssertion(form.get('assertion') ?? '', options, `https://${request.headers.host ?? ''}/token`);
      const { accessToken, expiresInSeconds } = options.accessTokens.issue();
      sendJson(response, 200, {
        access_token: accessToken,
        ...(fault === 'no_expiry' ? {} : { expires_in: expiresInSeconds }),
        token_type: 'Bearer',
      });
    } catch (error) {
      if (!(error instanceof OauthError)) throw error;
      sendJson(response, 400, { error: error.error, error_description: error.message });
    }
  }

  const server = createServer(
    { key: options.certificate.privateKey, cert: options.certificate.certificate + options.authority.certificate },
    (request, response) => {
      respond(request, response).catch(() => response.destroy());
    },
  );
  await new Promise<void>((resolve, reject) => {
    server.once('error', reject);
    server.listen(options.port, options.host, resolve);
  });
  return {
    port: (server.address() as AddressInfo).port,
    get fault() {
      return state.fault;
    },
    set fault(fault: OauthFault | null) {
      state.fault = fault;
    },
    get requests() {
      return state.requests;
    },
    close: () =>
      new Promise((resolve) => {
        server.close(() => resolve());
        server.closeAllConnections();
      }),
  };
}

/** @throws {OauthError} in Google's words. */
async function verifyAssertion(assertion: string, options: OauthServerOptions, ownUri: string): Promise<void> {
  const now = options.clock.now();
  try {
    const { kid } = decodeProtectedHeader(assertion);
    // The key id is optional in practice: some libraries leave it out.
    if (kid !== undefined && kid !== options.privateKeyId)
      throw new OauthError('invalid_grant', 'Invalid JWT Signature.');
    const { payload } = await jwtVerify(assertion, options.publicKey, {
      algorithms: ['RS256'],
      audience: [ownUri, googleTokenUri],
      currentDate: new Date(now),
      clockTolerance: 60,
      requiredClaims: ['iat', 'exp'],
    });
    if (payload.iss !== options.clientEmail) throw new OauthError('invalid_grant', 'Invalid issuer: account not found');
    if (
      !String(payload.scope ?? '')
        .split(' ')
        .includes(scope)
    ) {
      throw new OauthError('invalid_scope', 'Invalid OAuth scope or ID token audience provided.');
    }
    const { iat = 0, exp = 0 } = payload;
    if (exp - iat > 3600 || iat > now / 1000 + 60) throw new OauthError('invalid_grant', skewMessage);
  } catch (error) {
    if (error instanceof errors.JWTExpired) throw new OauthError('invalid_grant', skewMessage);
    if (error instanceof errors.JWSSignatureVerificationFailed) {
      throw new OauthError('invalid_grant', 'Invalid JWT Signature.');
    }
    if (error instanceof errors.JWTClaimValidationFailed) {
      throw new OauthError('invalid_grant', `Invalid JWT: bad claim ${error.claim}`);
    }
    if (error instanceof errors.JOSEError || error instanceof TypeError) {
      throw new OauthError('invalid_grant', 'Invalid JWT: Failed to parse.');
    }
    throw error;
  }
}

async function readText(request: IncomingMessage): Promise<string> {
  let text = '';
  request.setEncoding('utf8');
  for await (const part of request) text += part;
  return text;
}

function sendJson(response: ServerResponse, status: number, value: unknown): void {
  sendText(response, status, 'application/json; charset=utf-8', JSON.stringify(value));
}

function sendText(response: ServerResponse, status: number, contentType: string, text: string): void {
  response.writeHead(status, { 'content-type': contentType });
  response.end(text);
}
