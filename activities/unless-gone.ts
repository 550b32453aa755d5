import { ApplicationFailure } from '@temporalio/activity';
import { NoResultError } from 'kysely';

/**
 * A notification can be deleted with its app before its workflow has ended: then nothing of it will be found again, however often it is
 * looked for.
 * @throws {ApplicationFailure} `notification_gone`, final
 */
export async function unlessGone<T>(work: Promise<T>): Promise<T> {
  try {
    return await work;
  } catch (error) {
    if (!(error instanceof NoResultError)) throw error;
    throw ApplicationFailure.nonRetryable('The notification was deleted with its app.', 'notification_gone');
  }
}
