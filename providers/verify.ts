import type { CredentialKind } from '../domain/credential.ts';
import { within } from '../domain/within.ts';
import { CredentialError } from './credentials/credential-error.ts';
import type { ConfigurationFault, PushProvider, Verdict } from './provider.ts';

/** Nobody can say whether the credential is good: the provider did not answer, or not about it. */
export class ProviderUnreachableError extends Error {
  readonly code = 'provider_unreachable';

  constructor(message: string) {
    super(message);
    this.name = 'ProviderUnreachableError';
  }
}

/**
 * Asks the provider for its word on a credential, by a request that sends nothing.
 * @param deadlineMs for the answer; the provider is closed in any case
 * @throws {CredentialError} where it refuses, with its reason and the field at fault; {ProviderUnreachableError}
 */
export async function verifyByProvider(
  provider: PushProvider,
  kind: CredentialKind,
  deadlineMs: number,
): Promise<void> {
  try {
    judge(await within(provider.probe(), deadlineMs), kind);
  } finally {
    // Not waited for: a request that got no answer keeps its connection a while.
    provider.close().catch(() => {});
  }
}

function judge(verdict: Verdict | undefined, kind: CredentialKind): void {
  switch (verdict?.kind) {
    case 'accepted':
      return;
    case 'unregistered': {
      const { suspicion, reason } = verdict;
      // An invented device token belongs to no environment.
      if (suspicion === undefined || suspicion.fault === 'environment') return;
      throw refused(kind, suspicion.fault, reason, suspicion.check);
    }
    case 'rejected':
      // What FCM says of a device token that is none, whatever its sentence.
      if (verdict.reason === 'INVALID_ARGUMENT') return;
      throw unclear(verdict.reason);
    case 'misconfigured': {
      const { fault, reason, detail } = verdict;
      if (fault === 'clock') throw new ProviderUnreachableError(detail);
      throw refused(kind, fault, reason, detail);
    }
    case 'later':
    case 'unsent':
    case 'unanswered':
      throw unclear(verdict.reason);
    case undefined:
      throw unclear('deadline');
  }
}

const credentialFields: Record<CredentialKind, string> = {
  apns_key: 'private_key',
  apns_certificate: 'certificate',
  fcm_service_account: 'service_account',
};

/** Of the app, where the credential may be right and what the app says is not. */
const fields: Record<Exclude<ConfigurationFault, 'clock'>, (kind: CredentialKind) => string> = {
  credentials: (kind) => credentialFields[kind],
  topic: () => 'apns_topic',
  environment: () => 'apns_environment',
  project: () => 'project_id',
};

function refused(kind: CredentialKind, fault: ConfigurationFault, reason: string, detail: string): CredentialError {
  const field = fault === 'clock' ? credentialFields[kind] : fields[fault](kind);
  return new CredentialError(field, `The provider said ${reason}. ${detail}`);
}

function unclear(reason: string): ProviderUnreachableError {
  return new ProviderUnreachableError(`The provider gave no answer about the credential (${reason}).`);
}
