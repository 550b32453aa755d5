import type { Notification } from '../../domain/notification.ts';
import { ApiError } from '../http/api-error.ts';

/** 409; `verb` is what the state does not allow. */
export function stateConflict(verb: string, { state }: Notification): ApiError {
  return new ApiError(409, 'notification_state', `A notification that is ${state} does not take ${verb}.`, {
    extra: { state },
  });
}
