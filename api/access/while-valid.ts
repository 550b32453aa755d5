import { unauthorized } from './unauthorized.ts';

/** Parts of a body or an answer that may go on for hours, as long as the key of its caller is valid. @throws {ApiError} 401 */
export async function* whileValid<T>(
  parts: AsyncGenerator<T>,
  isStillValid: () => Promise<boolean>,
): AsyncGenerator<T> {
  for await (const part of parts) {
    if (!(await isStillValid())) throw unauthorized('The key is no longer valid.', 'invalid_token');
    yield part;
  }
}
