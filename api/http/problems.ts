import type { Context, ErrorHandler } from 'hono';
import { HTTPException } from 'hono/http-exception';
import { databaseFault } from '../../db/database-error.ts';
import { cutText } from '../../domain/cut-text.ts';
import { exhausted } from '../../domain/never.ts';
import { PayloadError } from '../../providers/payload/payload-error.ts';
import type { ApiEnv } from '../dependencies.ts';

/** Stable names of everything that can be wrong: callers switch on them, so they never change their meaning. */
export type ProblemCode =
  | 'malformed_request'
  | 'invalid_encoding'
  | 'malformed_json'
  | 'body_too_large'
  | 'body_timeout'
  | 'unsupported_media_type'
  | 'invalid_input'
  | 'payload_invalid'
  | 'unauthorized'
  | 'forbidden'
  | 'not_found'
  | 'method_not_allowed'
  | 'notification_state'
  | 'idempotency_key_reused'
  | 'database_unavailable'
  | 'identity_provider_unavailable'
  | 'internal';

/** One thing wrong with one field; `field` is its path as the caller wrote it: `message.data.from`, `audience.condition.and[1].value`. */
export interface FieldProblem {
  field: string;
  message: string;
}

export interface ApiErrorOptions {
  /** The first field at fault. */
  field?: string | undefined;
  errors?: FieldProblem[];
  headers?: Record<string, string>;
  /** Further members of the problem document. */
  extra?: Record<string, unknown>;
  cause?: unknown;
}

/** The caller is wrong, or the service cannot answer now. Becomes a problem document (RFC 9457) in `onError`. */
export class ApiError extends Error {
  readonly status: number;
  readonly code: ProblemCode;
  readonly field: string | undefined;
  readonly errors: FieldProblem[] | undefined;
  readonly headers: Record<string, string>;
  readonly extra: Record<string, unknown>;

  constructor(status: number, code: ProblemCode, message: string, options: ApiErrorOptions = {}) {
    super(message, { cause: options.cause });
    this.name = 'ApiError';
    this.status = status;
    this.code = code;
    this.field = options.field ?? options.errors?.[0]?.field;
    this.errors = options.errors;
    this.headers = options.headers ?? {};
    this.extra = options.extra ?? {};
  }
}

/** 422 for one field. */
export function invalidField(field: string, message: string, code: ProblemCode = 'invalid_input'): ApiError {
  return new ApiError(422, code, message, { field, errors: [{ field, message }] });
}

export function notFound(what: string): ApiError {
  return new ApiError(404, 'not_found', `There is no such ${what}.`);
}

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

/** The document that `problem` becomes, also inside a stream that has begun. */
export function problemDocument(problem: ApiError): Record<string, unknown> {
  return {
    type: 'about:blank',
    title: titles[problem.status] ?? 'Error',
    status: problem.status,
    detail: problem.message,
    code: problem.code,
    ...(problem.field !== undefined && { field: problem.field }),
    ...(problem.errors && { errors: problem.errors }),
    ...problem.extra,
  };
}

export function problemResponse(c: Context<ApiEnv>, problem: ApiError): Response {
  const body = JSON.stringify({ ...problemDocument(problem), request_id: c.var.requestId });
  return c.body(body, problem.status as 400, { ...problem.headers, 'Content-Type': 'application/problem+json' });
}

/** Every error that a route may throw, brought to one shape. What is not known here is a fault of ours: 500, and in the log. */
export function toApiError(error: unknown): ApiError {
  if (error instanceof ApiError) return error;
  if (error instanceof PayloadError) {
    const field = error.field === 'message' ? 'message' : `message.${error.field}`;
    return invalidField(field, error.message, 'payload_invalid');
  }
  if (error instanceof HTTPException) {
    const code = error.status === 415 ? 'unsupported_media_type' : 'malformed_request';
    return new ApiError(error.status, code, error.message, { cause: error });
  }
  const fault = databaseFault(error);
  switch (fault) {
    case 'away':
    case 'cancelled':
      return new ApiError(503, 'database_unavailable', 'The database cannot be reached now; try again.', {
        headers: { 'Retry-After': '2' },
        cause: error,
      });
    case 'unstorable':
      // Validation refuses it earlier, field by field.
      return new ApiError(422, 'invalid_input', 'A value cannot be stored.', { cause: error });
    case 'conflict':
    case 'misconfigured':
    case 'forbidden':
    case 'other':
      return new ApiError(500, 'internal', 'Something went wrong here.', { cause: error });
    default:
      return exhausted(fault);
  }
}
