import { z } from '@hono/zod-openapi';

const problemSchema = z
  .object({
    type: z.string(),
    title: z.string(),
    status: z.int(),
    detail: z.string(),
    code: z.string().openapi({ description: 'Stable: switch on it.', example: 'invalid_input' }),
    field: z.string().optional().openapi({ example: 'message.ttl' }),
    errors: z.array(z.object({ field: z.string(), message: z.string() })).optional(),
    errors_left_out: z.int().optional().openapi({ description: '`errors` has the first 20; so many more were found.' }),
    notification_id: z
      .string()
      .optional()
      .openapi({ description: 'With idempotency_key_reused: of the earlier request.' }),
    message_id: z.string().optional().openapi({ description: 'The same, where that was a message.' }),
    devices: z.int().optional().openapi({ description: 'With app_not_empty: what there is, 10 000 at most.' }),
    notifications: z.int().optional().openapi({ description: 'The same.' }),
    messages: z.int().optional().openapi({ description: 'The same.' }),
    max_devices: z.int().optional().openapi({ description: 'With device_limit_reached.' }),
    max_bytes: z.int().optional().openapi({ description: 'With body_too_large.' }),
    scope: z.string().optional().openapi({ description: 'With scope_missing: what the key lacks.' }),
    state: z.string().optional().openapi({ description: 'With notification_state: the state that forbids it.' }),
    request_id: z.string(),
  })
  .openapi('Problem', { description: 'RFC 9457' });

const text = (description: string) => ({ schema: { type: 'string' as const }, description });

const answers = {
  400: { description: 'Not JSON, not UTF-8, or no valid request.' },
  401: {
    description: 'No key, or one that is not valid now.',
    headers: { 'WWW-Authenticate': { ...text('RFC 6750'), required: true } },
  },
  403: {
    description: 'The key lacks a scope; `scope` says which.',
    headers: { 'WWW-Authenticate': { ...text('RFC 6750'), required: true } },
  },
  404: { description: 'Not found.' },
  408: { description: 'The body took too long.' },
  409: { description: 'The state, or an earlier request, does not allow it; or the app is being deleted.' },
  413: { description: 'The body is too large.' },
  415: { description: 'The body is not of the type that is taken here.' },
  422: { description: 'A field is wrong; `field` and `errors` say which.' },
  429: {
    description:
      'The key asks too often, or the app has too much under way; each process of the API counts for itself. Answers within a limit carry RateLimit and RateLimit-Policy too.',
    headers: {
      'Retry-After': { ...text('Seconds.'), required: true },
      RateLimit: text('draft-ietf-httpapi-ratelimit-headers'),
      'RateLimit-Policy': text('The same.'),
    },
  },
  503: {
    description: 'The database, the issuer of JWTs, or a provider that was to be asked, cannot be reached now.',
    headers: { 'Retry-After': text('Seconds.') },
  },
};
type Status = keyof typeof answers;

function describe(statuses: Iterable<Status>) {
  const content = { 'application/problem+json': { schema: problemSchema } };
  return Object.fromEntries([...statuses].map((status) => [status, { ...answers[status], content }]));
}

/** What a URL alone can be refused for, on every route. */
export const urlProblems = describe([400, 422]);

/** What every route behind a key can be refused for, before it is asked. */
export const accessProblems = describe([401, 403, 404, 409, 429]);

/** The problem answers of a route behind a key, for its documentation; those for its key and app are added by the router. */
export function problems(...statuses: Status[]) {
  return describe(new Set<Status>([400, ...statuses, 422, 503]));
}

/** Every body can be wrong in these ways too. */
export const bodyProblems = [408, 413, 415] as const;
