import { ApiError } from './api-error.ts';

/** `instead`: what else can be done. */
export function noMasterKey(instead = ''): ApiError {
  return new ApiError(
    409,
    'no_master_key',
    `Nothing secret is stored here: CARILLON_MASTER_KEYS is not set for the API. Set it there and for the workers${instead}.`,
  );
}
