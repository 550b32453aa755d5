import { HTTPException } from 'hono/http-exception';
import { databaseFault } from '../../db/database-error.ts';
import { exhausted } from '../../domain/exhausted.ts';
import { ApiError } from './api-error.ts';

/** Every error that a route may throw, brought to one shape. What is not known here is a fault of ours: 500, and in the log. */
export function toApiError(error: unknown): ApiError {
  if (error instanceof ApiError) return error;
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
