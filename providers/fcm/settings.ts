import type { Settings } from '../../domain/settings.ts';

export interface FcmSettings {
  /** `FCM_SERVICE_ACCOUNT_FILE` */
  serviceAccountFile: string;
  /** `FCM_PROJECT_ID`, default: the service account's. */
  projectId: string | undefined;
  /** `FCM_URL`, `FCM_TOKEN_URL`: other endpoints than Google's, for the simulator. */
  url: string | undefined;
  tokenUrl: string | undefined;
}

/** Undefined without a service account. */
export function readFcmSettings(settings: Settings): FcmSettings | undefined {
  const serviceAccountFile = settings.text('FCM_SERVICE_ACCOUNT_FILE');
  const projectId = settings.text('FCM_PROJECT_ID');
  const url = settings.text('FCM_URL');
  const tokenUrl = settings.text('FCM_TOKEN_URL');
  return serviceAccountFile === undefined ? undefined : { serviceAccountFile, projectId, url, tokenUrl };
}
