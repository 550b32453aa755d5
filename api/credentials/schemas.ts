import { z } from '@hono/zod-openapi';
import type { CredentialRecord } from '../../db/credentials.ts';
import { credentialKinds, expiryWarningDays, providerOfCredential } from '../../domain/credential.ts';
import { providerNames } from '../../domain/device.ts';
import { isJsonObject, type JsonObject, type JsonValue } from '../../domain/json.ts';
import { appParams } from '../access/app-params.ts';
import { notFound } from '../http/api-error.ts';
import { answeredInstant, answeredInstantOrNull } from '../http/instant.ts';
import { nextCursor } from '../http/paging.ts';
import { isUuid } from '../http/uuid.ts';

export const credentialParams = appParams.extend({
  id: z.string().openapi({ format: 'uuid', example: '019c0000-0000-7000-8000-000000000000' }),
});

/** An id that is no UUID cannot exist. */
export function checkedCredentialId(id: string): string {
  if (!isUuid(id)) throw notFound('credential');
  return id;
}

const pasted = (description: string) => z.string().max(200_000).openapi({ description }).optional();

/** Names of fields are those that errors name. */
export const newCredentialSchema = z
  .strictObject({
    kind: z.enum(credentialKinds).optional().openapi({ description: 'May be left out: the fields tell.' }),
    private_key: pasted(
      'apns_key: the .p8 file. apns_certificate: its key, where the file of the certificate has none.',
    ),
    key_id: pasted('apns_key'),
    team_id: pasted('apns_key'),
    certificate: pasted('apns_certificate: PEM, or base64 of the .p12 file.'),
    password: pasted('apns_certificate: of the .p12 file or of the key.'),
    service_account: z
      .custom<string | JsonObject>((value) => typeof value === 'string' || isJsonObject(value as JsonValue), {
        error: 'Must be the JSON key file, as an object or as text.',
      })
      .optional()
      .openapi({
        type: ['string', 'object'],
        description: 'fcm_service_account: the JSON key file, as an object or as text.',
      }),
    project_id: pasted("fcm_service_account: the Firebase project, where it is not the account's own."),
  })
  .openapi('NewCredential', {
    description:
      'Keys and certificates are taken in every shape that people paste: with literal `\\n`, in quotes, on one line, as base64 of the file, without a PEM frame.',
    example: { private_key: '-----BEGIN PRIVATE KEY-----\n…', key_id: 'ABC123DEFG', team_id: 'TEAM123456' },
  });

export const credentialSchema = z
  .object({
    id: z.uuid(),
    kind: z.enum(credentialKinds),
    provider: z.enum(providerNames),
    fingerprint: z.string().openapi({
      description: 'SHA-256 of what is public of it: of a certificate, or of a public key with its ids.',
    }),
    details: z.record(z.string(), z.any()).openapi({
      description:
        'apns_key: key_id, team_id. apns_certificate: apns_topic, environments. fcm_service_account: project_id, client_email, private_key_id.',
    }),
    in_use: z.boolean().openapi({ description: 'The newest of its provider that may be used: workers send with it.' }),
    created_at: answeredInstant,
    activated_at: answeredInstantOrNull,
    expires_at: answeredInstantOrNull.openapi({ description: 'Certificates alone expire.' }),
    expires_soon: z.boolean().openapi({ description: `Within ${expiryWarningDays} days, or already.` }),
    last_used_at: answeredInstantOrNull.openapi({ description: 'To the minute.' }),
    last_refused_at: answeredInstantOrNull.openapi({ description: 'The same.' }),
    last_refusal: z.string().nullable().openapi({ description: 'What the provider said.' }),
    revoked_at: answeredInstantOrNull,
  })
  .openapi('Credential', { description: 'Without its secret, which no answer holds.' });

export const credentialPageSchema = z
  .object({ credentials: z.array(credentialSchema), next_cursor: nextCursor })
  .openapi('CredentialPage');

const warningMs = expiryWarningDays * 86_400_000;

export function fromCredential(credential: CredentialRecord, now: Date): z.infer<typeof credentialSchema> {
  const { expiresAt, revokedAt } = credential;
  return {
    id: credential.id,
    kind: credential.kind,
    provider: providerOfCredential[credential.kind],
    fingerprint: credential.fingerprint,
    details: credential.details,
    in_use: credential.isInUse,
    created_at: credential.createdAt.toISOString(),
    activated_at: credential.activatedAt?.toISOString() ?? null,
    expires_at: expiresAt?.toISOString() ?? null,
    expires_soon: expiresAt !== undefined && revokedAt === undefined && expiresAt.getTime() - now.getTime() < warningMs,
    last_used_at: credential.lastUsedAt?.toISOString() ?? null,
    last_refused_at: credential.lastRefusedAt?.toISOString() ?? null,
    last_refusal: credential.lastRefusal ?? null,
    revoked_at: revokedAt?.toISOString() ?? null,
  };
}
