import type { CredentialKind, NewCredential } from '../../domain/credential.ts';
import type { JsonObject } from '../../domain/json.ts';
import { CredentialFields } from '../credentials/fields.ts';
import { fingerprintOfAccount, normaliseServiceAccount, type ServiceAccount } from './service-account.ts';

/**
 * @param allowedTokenUris besides Google's
 * @throws {CredentialError} naming the field
 */
export function readFcmCredential(
  kind: CredentialKind,
  fields: JsonObject,
  allowedTokenUris: readonly string[],
): ServiceAccount {
  const { service_account: account, ...rest } = fields;
  const others = new CredentialFields(kind, rest, ['service_account', 'project_id']);
  const projectId = others.text('project_id');
  const text = typeof account === 'object' && account !== null ? JSON.stringify(account) : undefined;
  return normaliseServiceAccount(
    text ?? new CredentialFields(kind, fields, Object.keys(fields)).required('service_account'),
    {
      ...(projectId !== undefined && { projectId }),
      allowedTokenUris,
    },
  );
}

export function storableFcmCredential(account: ServiceAccount): NewCredential {
  const { projectId, clientEmail, privateKeyPem, privateKeyId, tokenUri } = account;
  const details = { project_id: projectId, client_email: clientEmail, private_key_id: privateKeyId ?? null };
  return {
    kind: 'fcm_service_account',
    details,
    secret: JSON.stringify({
      service_account: { type: 'service_account', ...details, private_key: privateKeyPem, token_uri: tokenUri },
    }),
    fingerprint: fingerprintOfAccount(account),
    expiresAt: undefined,
  };
}
