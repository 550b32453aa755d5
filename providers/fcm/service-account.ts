import { createHash, createPublicKey } from 'node:crypto';
import { isJsonObject, type JsonObject } from '../../domain/json.ts';
import { CredentialError } from '../credentials/credential-error.ts';
import { decodeBase64, normalisePrivateKey, unwrap } from '../credentials/private-key.ts';

/** A Google service account, ready to use. */
export interface ServiceAccount {
  projectId: string;
  clientEmail: string;
  /** PKCS#8 PEM, RSA of 2048 bits or more. */
  privateKeyPem: string;
  privateKeyId?: string;
  tokenUri: string;
}

const googleTokenUri = 'https://oauth2.googleapis.com/token';

export interface ServiceAccountRules {
  /** Used instead of the file's own project, for accounts that serve several. */
  projectId?: string;
  /**
   * Token endpoints that a key file may name besides Google's: an uploaded file could name any address, and the request sent
   * there buys an access token.
   */
  allowedTokenUris?: readonly string[];
}

/** Accepts the key file in any usual shape, and proves its key. @throws {CredentialError} */
export function normaliseServiceAccount(input: string | Uint8Array, rules: ServiceAccountRules = {}): ServiceAccount {
  const file = readFile(typeof input === 'string' ? input : new TextDecoder().decode(input));
  checkKind(file);
  const projectId = rules.projectId ?? text(file.project_id);
  if (projectId === undefined) throw missing('project_id');
  if (!/^[a-z0-9:.-]{1,128}$/.test(projectId)) {
    throw new CredentialError('project_id', 'A project id has lower-case letters, digits and hyphens.');
  }
  const clientEmail = text(file.client_email);
  if (clientEmail === undefined) throw missing('client_email');
  const privateKey = text(file.private_key);
  if (privateKey === undefined) throw missing('private_key');
  const privateKeyId = text(file.private_key_id);
  return {
    projectId,
    clientEmail,
    privateKeyPem: normalisePrivateKey(privateKey, 'rsa'),
    ...(privateKeyId === undefined ? {} : { privateKeyId }),
    tokenUri: checkedTokenUri(text(file.token_uri) ?? googleTokenUri, rules.allowedTokenUris ?? []),
  };
}

/** Hexadecimal; the same wherever this key is used for this project, and says nothing about the private part. */
export function fingerprintOfAccount({ privateKeyPem, projectId, clientEmail, privateKeyId }: ServiceAccount): string {
  const spki = createPublicKey(privateKeyPem).export({ type: 'spki', format: 'der' });
  return createHash('sha256')
    .update(spki)
    .update(`\n${projectId}\n${clientEmail}\n${privateKeyId ?? ''}`)
    .digest('hex');
}

function text(value: unknown): string | undefined {
  return typeof value === 'string' && value.trim() !== '' ? value.trim() : undefined;
}

function missing(key: string): CredentialError {
  return new CredentialError('service_account', `The service account file has no ${key}.`);
}

function checkedTokenUri(tokenUri: string, allowed: readonly string[]): string {
  if (tokenUri === googleTokenUri || allowed.includes(tokenUri)) return tokenUri;
  throw new CredentialError('token_uri', `The key file's token_uri is not ${googleTokenUri}, so it is not used.`);
}

function readFile(input: string): JsonObject {
  const bare = unwrap(input);
  for (const candidate of candidates(bare)) {
    const value = parse(candidate);
    if (value !== undefined) return value;
  }
  throw notJson(bare);
}

/** The shapes in which the file may arrive; each is tried as JSON. */
function* candidates(bare: string): Generator<string> {
  yield bare;
  // Line ends inside the private key, made real by a shell; JSON wants them escaped.
  yield escapeLineEndsInStrings(bare);
  // Literal \n between the fields, from a file pasted into one line.
  yield bare.replace(/\\+n(?=\s*["}])|(?<=[{,])\s*\\+n/g, ' ');
  // A JSON text that was itself written as a JSON string.
  yield bare.replace(/\\(["\\])/g, '$1');
  const bytes = bare.startsWith('{') ? undefined : decodeBase64(bare);
  if (bytes === undefined) return;
  const inner = unwrap(new TextDecoder().decode(bytes));
  if (inner.startsWith('{')) yield* candidates(inner);
}

function parse(candidate: string): JsonObject | undefined {
  try {
    const value: unknown = JSON.parse(candidate);
    return isJsonObject(value as JsonObject) ? (value as JsonObject) : undefined;
  } catch {
    // The next shape is tried; the parser's message would quote the file.
    return undefined;
  }
}

function escapeLineEndsInStrings(json: string): string {
  return json.replace(/"(?:[^"\\]|\\[\s\S])*"/g, (literal) => literal.replace(/\r?\n/g, '\\n').replace(/\t/g, '\\t'));
}

function notJson(bare: string): CredentialError {
  let found = 'not JSON';
  if (bare.startsWith('{')) found = 'damaged JSON, perhaps only a part of the file';
  else if (bare.includes('-----BEGIN')) found = 'a PEM file (a key of APNs, or only the key of the account)';
  else if (bare.startsWith('AAAA')) found = 'a server key of the old FCM API, which Google has switched off';
  return new CredentialError(
    'service_account',
    `This is ${found}; the JSON key file of a Google service account is needed.`,
  );
}

/** Google's console offers several JSON files; only one kind can send. */
function checkKind(file: JsonObject): void {
  if (file.type === 'service_account') return;
  let found = file.type === undefined ? 'a JSON file of another kind' : 'a JSON file with another "type"';
  if (file.project_info !== undefined) found = 'google-services.json, which belongs into the Android app';
  else if (file.installed !== undefined || file.web !== undefined) found = 'an OAuth client file';
  else if (file.type === 'authorized_user') found = "a person's own Google credential";
  throw new CredentialError('service_account', `This is ${found}; the JSON key file of a service account is needed.`);
}
