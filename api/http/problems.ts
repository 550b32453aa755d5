import type { Context, ErrorHandler } from 'hono';
import { cutText } from '../../domain/cut-text.ts';
import { ApiError } from './api-error.ts';
import type { ApiEnv } from './env.ts';
import { toApiError } from './to-api-error.ts';

const titles: Record<number, string> = {
  400: 'Bad Request',
  401: 'Unauthorized',
  403: 'Forbidden',
  404: 'Not Found',
  405: 'Method Not Allowed',
  408: 'Request Timeout',
  409: 'Conflict',
  413: 'Content Too Large',
  415: 'Unsupported Media Type',
  422: 'Unprocessable Content',
  429: 'Too Many Requests',
  500: 'Internal Server Error',
  503: 'Service Unavailable',
};

export const handleError: ErrorHandler<ApiEnv> = (error, c) => {
  const problem = toApiError(error);
  if (problem.status >= 500) {
    c.var.log.error({ err: problem.cause ?? error, requestId: c.var.requestId, path: c.req.path }, problem.message);
  }
  return problemResponse(c, problem);
};

export function handleNotFound(c: Context<ApiEnv>): Response {
  return problemResponse(c, new ApiError(404, 'not_found', `There is no ${cutText(c.req.path, 200)} here.`));
}

export function problemResponse(c: Context<ApiEnv>, problem: ApiError): Response {
  const { status, code, field, errors, extra } = problem;
  const body = {
    type: 'about:blank',
    title: titles[status] ?? 'Error',
    status,
    detail: problem.message,
    code,
    ...(field !== undefined && { field }),
    ...(errors && { errors }),
    ...extra,
    request_id: c.var.requestId,
  };
  const headers = { ...problem.headers, 'Content-Type': 'application/problem+json' };
  return c.body(JSON.stringify(body), status as 400, headers);
}
