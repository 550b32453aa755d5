/** FCM's error answers, each in the exact shape that the HTTP v1 API sends. */

export interface FcmError {
  status: number;
  /** The name in the ledger: the FcmError code, or the nearest name where the answer has none. */
  name: string;
  body: string;
}

const fcmErrorType = 'type.googleapis.com/google.firebase.fcm.v1.FcmError';
const apnsErrorType = 'type.googleapis.com/google.firebase.fcm.v1.ApnsError';
const badRequestType = 'type.googleapis.com/google.rpc.BadRequest';
const errorInfoType = 'type.googleapis.com/google.rpc.ErrorInfo';

type Detail = { '@type': string } & Record<string, unknown>;

function fcmError(httpStatus: number, name: string, message: string, status: string, details?: Detail[]): FcmError {
  const error = { code: httpStatus, message, status, ...(details === undefined ? {} : { details }) };
  return { status: httpStatus, name, body: `${JSON.stringify({ error }, undefined, 2)}\n` };
}

function withCode(errorCode: string): Detail[] {
  return [{ '@type': fcmErrorType, errorCode }];
}

export const fcmErrors = {
  unregistered: fcmError(404, 'UNREGISTERED', 'Requested entity was not found.', 'NOT_FOUND', withCode('UNREGISTERED')),
  invalidRegistrationToken: fcmError(
    400,
    'INVALID_ARGUMENT',
    'The registration token is not a valid FCM registration token',
    'INVALID_ARGUMENT',
    withCode('INVALID_ARGUMENT'),
  ),
  senderIdMismatch: fcmError(
    403,
    'SENDER_ID_MISMATCH',
    'SenderId mismatch',
    'PERMISSION_DENIED',
    withCode('SENDER_ID_MISMATCH'),
  ),
  deviceQuota: fcmError(
    429,
    'QUOTA_EXCEEDED',
    'Device message rate exceeded.',
    'RESOURCE_EXHAUSTED',
    withCode('QUOTA_EXCEEDED'),
  ),
  unavailable: fcmError(
    503,
    'UNAVAILABLE',
    'The service is currently unavailable.',
    'UNAVAILABLE',
    withCode('UNAVAILABLE'),
  ),
  internal: fcmError(500, 'INTERNAL', 'Internal error encountered.', 'INTERNAL', withCode('INTERNAL')),
  thirdPartyAuth: fcmError(
    401,
    'THIRD_PARTY_AUTH_ERROR',
    'Auth error from APNS or Web Push Service',
    'UNAUTHENTICATED',
    [
      { '@type': fcmErrorType, errorCode: 'THIRD_PARTY_AUTH_ERROR' },
      { '@type': apnsErrorType, statusCode: 403, reason: 'InvalidProviderToken' },
    ],
  ),
  missingCredential: fcmError(
    401,
    'UNAUTHENTICATED',
    'Request is missing required authentication credential. Expected OAuth 2 access token, login cookie or other valid authentication credential. See https://developers.google.com/identity/sign-in/web/devconsole-project.',
    'UNAUTHENTICATED',
    [
      {
        '@type': errorInfoType,
        reason: 'CREDENTIALS_MISSING',
        domain: 'googleapis.com',
        metadata: { method: 'google.firebase.fcm.v1.FcmService.SendMessage', service: 'fcm.googleapis.com' },
      },
    ],
  ),
  invalidCredential: fcmError(
    401,
    'UNAUTHENTICATED',
    'Request had invalid authentication credentials. Expected OAuth 2 access token, login cookie or other valid authentication credential. See https://developers.google.com/identity/sign-in/web/devconsole-project.',
    'UNAUTHENTICATED',
  ),
  serviceDisabled: fcmError(
    403,
    'SERVICE_DISABLED',
    'Firebase Cloud Messaging API has not been used in project 123456789012 before or it is disabled. Enable it by visiting https://console.developers.google.com/apis/api/fcm.googleapis.com/overview?project=123456789012 then retry. If you enabled this API recently, wait a few minutes for the action to propagate to our systems and retry.',
    'PERMISSION_DENIED',
    [
      {
        '@type': 'type.googleapis.com/google.rpc.Help',
        links: [
          {
            description: 'Google developers console API activation',
            url: 'https://console.developers.google.com/apis/api/fcm.googleapis.com/overview?project=123456789012',
          },
        ],
      },
      {
        '@type': errorInfoType,
        reason: 'SERVICE_DISABLED',
        domain: 'googleapis.com',
        metadata: { service: 'fcm.googleapis.com', consumer: 'projects/123456789012' },
      },
    ],
  ),
  /** The project's quota: an ErrorInfo and, unlike all others, no FcmError. */
  projectQuota: fcmError(
    429,
    'RATE_LIMIT_EXCEEDED',
    "Quota exceeded for quota metric 'Send requests' and limit 'Send requests per minute' of service 'fcm.googleapis.com' for consumer 'project_number:123456789012'.",
    'RESOURCE_EXHAUSTED',
    [
      {
        '@type': errorInfoType,
        reason: 'RATE_LIMIT_EXCEEDED',
        domain: 'googleapis.com',
        metadata: {
          service: 'fcm.googleapis.com',
          consumer: 'projects/123456789012',
          quota_metric: 'fcm.googleapis.com/send_requests',
          quota_limit: 'SendsPerMinutePerProject',
          quota_limit_value: '600000',
          quota_location: 'global',
        },
      },
    ],
  ),
} satisfies Record<string, FcmError>;

export function permissionDenied(project: string): FcmError {
  const resource = `//cloudresourcemanager.googleapis.com/projects/${project}`;
  return fcmError(
    403,
    'IAM_PERMISSION_DENIED',
    `Permission 'cloudmessaging.messages.create' denied on resource '${resource}' (or it may not exist).`,
    'PERMISSION_DENIED',
    [
      {
        '@type': errorInfoType,
        reason: 'IAM_PERMISSION_DENIED',
        domain: 'cloudresourcemanager.googleapis.com',
        metadata: { resource: `projects/${project}`, permission: 'cloudmessaging.messages.create' },
      },
    ],
  );
}

/** A message that parses but breaks a rule: FcmError and the field. */
export function invalidArgument(field: string, description: string): FcmError {
  return fcmError(400, 'INVALID_ARGUMENT', description, 'INVALID_ARGUMENT', [
    { '@type': fcmErrorType, errorCode: 'INVALID_ARGUMENT' },
    { '@type': badRequestType, fieldViolations: [{ field, description }] },
  ]);
}

/** JSON that doesn't fit the message definition is refused before FCM sees it: no FcmError. */
export function invalidPayload(field: string, description: string): FcmError {
  return fcmError(400, 'INVALID_ARGUMENT', description, 'INVALID_ARGUMENT', [
    { '@type': badRequestType, fieldViolations: [{ field, description }] },
  ]);
}

/** An iOS device's error, relayed by FCM with Apple's own reason. */
function apnsRelayed(httpStatus: number, errorCode: string, apnsStatus: number, reason: string): FcmError {
  const message =
    reason === 'Unregistered' ? 'APNs device token is disabled.' : 'Request contains an invalid argument.';
  return fcmError(httpStatus, errorCode, message, httpStatus === 404 ? 'NOT_FOUND' : 'INVALID_ARGUMENT', [
    { '@type': fcmErrorType, errorCode },
    { '@type': apnsErrorType, statusCode: apnsStatus, reason },
  ]);
}

const grpcStatuses: Record<number, string> = {
  400: 'INVALID_ARGUMENT',
  401: 'UNAUTHENTICATED',
  403: 'PERMISSION_DENIED',
  404: 'NOT_FOUND',
  429: 'RESOURCE_EXHAUSTED',
  500: 'INTERNAL',
  503: 'UNAVAILABLE',
};

/** The answer for a rule: a known name has its known shape, any other becomes an FcmError of that code. */
export function fcmErrorByName(httpStatus: number, name: string | undefined): FcmError {
  const known = Object.values(fcmErrors).find((error) => error.name === name && error.status === httpStatus);
  if (known !== undefined) return known;
  if (name === 'IAM_PERMISSION_DENIED') return permissionDenied('unknown');
  if (name?.startsWith('Apns')) return apnsRelayed(httpStatus, apnsErrorCode(httpStatus), httpStatus, name.slice(4));
  const status = grpcStatuses[httpStatus] ?? 'UNKNOWN';
  return fcmError(
    httpStatus,
    name ?? status,
    'Request failed.',
    status,
    name === undefined ? undefined : withCode(name),
  );
}

function apnsErrorCode(httpStatus: number): string {
  return httpStatus === 404 ? 'UNREGISTERED' : 'INVALID_ARGUMENT';
}
