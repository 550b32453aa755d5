import { z } from '@hono/zod-openapi';

export const problemSchema = z
  .object({
    type: z.string(),
    title: z.string(),
    status: z.int(),
    detail: z.string(),
    code: z.string().openapi({ description: 'Stable: switch on it.', example: 'invalid_input' }),
    field: z.string().optional().openapi({ example: 'message.ttl' }),
    errors: z.array(z.object({ field: z.string(), message: z.string() })).optional(),
    state: z.string().optional().openapi({ description: 'With notification_state: the state that forbids it.' }),
    request_id: z.string(),
  })
  .openapi('Problem', { description: 'RFC 9457' });

const descriptions = {
  400: 'Not JSON, not UTF-8, or no valid request.',
  401: 'No key, or one that is not known.',
  404: 'Not found.',
  409: 'The state, or an earlier request, does not allow it.',
  413: 'The body is too large.',
  415: 'The body is not JSON.',
  422: 'A field is wrong; `field` and `errors` say which.',
  503: 'The database cannot be reached now.',
};

/** The problem answers of a route, for its documentation. */
export function problems(...statuses: (keyof typeof descriptions)[]) {
  const all = new Set<keyof typeof descriptions>([401, ...statuses, 503]);
  return Object.fromEntries(
    [...all].map((status) => [
      status,
      { description: descriptions[status], content: { 'application/problem+json': { schema: problemSchema } } },
    ]),
  );
}

/** Every body can be wrong in these ways. */
export const bodyProblems = [400, 413, 415, 422] as const;
