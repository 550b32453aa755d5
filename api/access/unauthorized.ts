import { ApiError } from '../http/api-error.ts';

/** 401 with the challenge of RFC 6750, 3. */
export function unauthorized(message: string, error?: 'invalid_token'): ApiError {
  const challenge = `Bearer realm="carillon"${error === undefined ? '' : `, error="${error}"`}`;
  return new ApiError(401, 'unauthorized', message, { headers: { 'WWW-Authenticate': challenge } });
}
