import type { Settings } from '../../domain/settings.ts';
import { apnsPushTypeRules } from './payload.ts';

export interface ApnsSettings {
  /** `APNS_KEY_FILE` (p8), `APNS_KEY_ID`, `APNS_TEAM_ID`; all three or none. */
  key: { file: string; keyId: string; teamId: string } | undefined;
  /** `APNS_CERTIFICATE_FILE` (PEM or p12) and `APNS_CERTIFICATE_PASSWORD`, instead of a key. */
  certificate: { file: string; password: string } | undefined;
  /** `APNS_TOPIC`: the app's bundle id. */
  topic: string | undefined;
  /** `APNS_ENVIRONMENT` of devices that name none: production (default) or sandbox. */
  environment: 'production' | 'sandbox';
  /** `APNS_URL`, `APNS_SANDBOX_URL`: other endpoints than Apple's, for the simulator. */
  url: string | undefined;
  sandboxUrl: string | undefined;
}

export function readApnsSettings(settings: Settings): ApnsSettings {
  const key = settings.together('APNS_KEY_FILE', 'APNS_KEY_ID', 'APNS_TEAM_ID');
  const certificateFile = settings.text('APNS_CERTIFICATE_FILE');
  const topic = settings.text('APNS_TOPIC');
  if ((key || certificateFile) && topic === undefined) {
    settings.problems.push('APNS_TOPIC is not set (it belongs to the APNs credential)');
  }
  if (topic !== undefined) settings.problems.push(...topicProblems(topic));
  return {
    key: key && { file: key[0], keyId: key[1], teamId: key[2] },
    certificate:
      certificateFile === undefined
        ? undefined
        : { file: certificateFile, password: settings.text('APNS_CERTIFICATE_PASSWORD') ?? '' },
    topic,
    environment: settings.oneOf('APNS_ENVIRONMENT', ['production', 'sandbox'], 'production'),
    url: settings.text('APNS_URL'),
    sandboxUrl: settings.text('APNS_SANDBOX_URL'),
  };
}

/** Whether there is a credential in files. */
export function namesFiles({ key, certificate }: ApnsSettings): boolean {
  return key !== undefined || certificate !== undefined;
}

/** The provider adds the suffix of a push type to the bundle id: a topic that already ends in one would have it twice. */
function topicProblems(topic: string): string[] {
  const suffixes = Object.values(apnsPushTypeRules).map(({ topicSuffix }) => topicSuffix);
  const suffix = suffixes.find((text) => text !== '' && topic.endsWith(text));
  if (suffix !== undefined) {
    const bundleId = topic.slice(0, -suffix.length);
    return [`APNS_TOPIC must be the bundle id "${bundleId}", not "${topic}": "${suffix}" is added by the push type`];
  }
  if (/^[A-Za-z0-9._-]+$/.test(topic)) return [];
  return [`APNS_TOPIC must be a bundle id (letters, digits, ".", "-", "_"), not "${topic}"`];
}
