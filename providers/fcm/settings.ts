import type { Settings } from '../../domain/settings.ts';

export interface FcmSettings {
  /** `FCM_SERVICE_ACCOUNT_FILE` */
  serviceAccountFile: string | undefined;
  /** `FCM_PROJECT_ID` of app `default`; default: the service account's. */
  projectId: string | undefined;
  /** `FCM_URL`, `FCM_TOKEN_URL`: other endpoints than Google's, for the simulator. */
  url: string | undefined;
  tokenUrl: string | undefined;
}

export function readFcmSettings(settings: Settings): FcmSettings {
  return {
    serviceAccountFile: settings.text('FCM_SERVICE_ACCOUNT_FILE'),
    projectId: settings.text('FCM_PROJECT_ID'),
    url: settings.text('FCM_URL'),
    tokenUrl: settings.text('FCM_TOKEN_URL'),
  };
}
