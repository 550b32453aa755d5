/** Stable names of everything that can be wrong: callers switch on them, so they never change their meaning. */
type ProblemCode =
  | 'malformed_request'
  | 'invalid_encoding'
  | 'malformed_json'
  | 'body_too_large'
  | 'body_timeout'
  | 'unsupported_media_type'
  | 'invalid_input'
  | 'payload_invalid'
  | 'credential_invalid'
  | 'no_master_key'
  | 'provider_unreachable'
  | 'unauthorized'
  | 'scope_missing'
  | 'app_required'
  | 'app_deleting'
  | 'app_exists'
  | 'app_not_empty'
  | 'default_app'
  | 'device_limit_reached'
  | 'key_ended'
  | 'too_many_webhooks'
  | 'webhook_disabled'
  | 'rate_limited'
  | 'too_many_imports'
  | 'too_many_exports'
  | 'too_many_event_streams'
  | 'not_found'
  | 'method_not_allowed'
  | 'notification_state'
  | 'idempotency_key_reused'
  | 'database_unavailable'
  | 'identity_provider_unavailable'
  | 'internal';

/** One thing wrong with one field; `field` is its path as the caller wrote it: `audience.condition.and[1].value`. */
export interface FieldProblem {
  field: string;
  message: string;
}

interface ApiErrorOptions {
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
