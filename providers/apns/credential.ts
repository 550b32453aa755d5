import type { CredentialKind, NewCredential } from '../../domain/credential.ts';
import type { JsonObject } from '../../domain/json.ts';
import { CredentialError } from '../credentials/credential-error.ts';
import { CredentialFields } from '../credentials/fields.ts';
import {
  type ApnsCertificate,
  type ApnsCertificateFacts,
  fingerprintOfCertificate,
  normaliseApnsCertificate,
} from './certificate.ts';
import { type ApnsKey, fingerprintOfKey, normaliseApnsKey } from './key.ts';
import { apnsPushTypeRules } from './payload.ts';

type ApnsCredential = ApnsKey | (ApnsCertificate & ApnsCertificateFacts);

/** @throws {CredentialError} naming the field */
export function readApnsCredential(kind: CredentialKind, fields: JsonObject, now: Date): ApnsCredential {
  if (kind === 'apns_key') {
    const key = new CredentialFields(kind, fields, ['private_key', 'key_id', 'team_id']);
    return normaliseApnsKey({
      privateKey: key.required('private_key'),
      keyId: key.required('key_id'),
      teamId: key.required('team_id'),
    });
  }
  const certificate = new CredentialFields(kind, fields, ['certificate', 'private_key', 'password']);
  return normaliseApnsCertificate(
    {
      certificate: certificate.required('certificate'),
      privateKey: certificate.text('private_key'),
      password: certificate.text('password'),
    },
    now,
  );
}

/** @param apnsTopic the app's bundle id, where it is known: a certificate for another one cannot serve it */
export function storableApnsCredential(credential: ApnsCredential, apnsTopic: string | undefined): NewCredential {
  if (credential.kind === 'key') {
    const { privateKeyPem, keyId, teamId } = credential;
    const details = { key_id: keyId, team_id: teamId };
    return {
      kind: 'apns_key',
      details,
      secret: JSON.stringify({ private_key: privateKeyPem, ...details }),
      fingerprint: fingerprintOfKey(credential),
      expiresAt: undefined,
    };
  }
  const { certificatePem, privateKeyPem, expiresAt, environments } = credential;
  if (apnsTopic !== undefined && credential.apnsTopic !== undefined && !serves(credential.apnsTopic, apnsTopic)) {
    throw new CredentialError(
      'certificate',
      `The certificate is for ${credential.apnsTopic}, and the app's apns_topic is ${apnsTopic}.`,
    );
  }
  return {
    kind: 'apns_certificate',
    details: { apns_topic: credential.apnsTopic ?? null, environments },
    secret: JSON.stringify({ certificate: certificatePem, private_key: privateKeyPem }),
    fingerprint: fingerprintOfCertificate(credential),
    expiresAt,
  };
}

/** Certificates for one push type alone carry its suffix. */
function serves(certificateTopic: string, apnsTopic: string): boolean {
  return Object.values(apnsPushTypeRules).some(({ topicSuffix }) => certificateTopic === apnsTopic + topicSuffix);
}
