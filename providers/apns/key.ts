import { createHash, createPublicKey } from 'node:crypto';
import { CredentialError } from '../credentials/credential-error.ts';
import { normalisePrivateKey } from '../credentials/private-key.ts';

/** An APNs signing key, ready to use. */
export interface ApnsKey {
  kind: 'key';
  /** PKCS#8 PEM, P-256. */
  privateKeyPem: string;
  /** Ten characters; names the key in the developer account. */
  keyId: string;
  /** Ten characters; names the developer account. */
  teamId: string;
}

const tenCharacters = /^[A-Z0-9]{10}$/;

/** Accepts the key in any usual shape, proves it, and checks the form of the ids. @throws {CredentialError} */
export function normaliseApnsKey(input: { privateKey: string | Uint8Array; keyId: string; teamId: string }): ApnsKey {
  return {
    kind: 'key',
    privateKeyPem: normalisePrivateKey(input.privateKey, 'ec'),
    keyId: normaliseId(input.keyId, 'key_id', 'key id'),
    teamId: normaliseId(input.teamId, 'team_id', 'team id'),
  };
}

/** Hexadecimal; the same in every process that holds this key under these ids, and says nothing about the private part. */
export function fingerprintOfKey({ privateKeyPem, keyId, teamId }: ApnsKey): string {
  const spki = createPublicKey(privateKeyPem).export({ type: 'spki', format: 'der' });
  return createHash('sha256').update(spki).update(`\n${teamId}\n${keyId}`).digest('hex');
}

function normaliseId(text: string, field: string, name: string): string {
  const id = text.trim();
  if (!tenCharacters.test(id)) {
    throw new CredentialError(
      field,
      `The ${name} has ten capital letters and digits; Apple's developer account shows it.`,
    );
  }
  return id;
}
