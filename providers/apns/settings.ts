import type { Settings } from '../../domain/settings.ts';
import { topicProblem } from './topic.ts';

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
  const problem = topic === undefined ? undefined : topicProblem(topic);
  if (problem !== undefined) settings.problems.push(`APNS_TOPIC ${problem}`);
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
