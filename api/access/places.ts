import { ApiError } from '../http/api-error.ts';

/** Takes one of an app's places; the answer gives it back, once however often it is called. @throws {ApiError} 429 */
export type TakePlace = (appId: number) => () => void;

/** What the refusal is called. */
type Code = 'too_many_imports' | 'too_many_exports' | 'too_many_event_streams';

/** What one app may have under way at once in this process, so that it leaves the others their share. */
export function limitPlaces(max: number, code: Code, what: string): TakePlace {
  const taken = new Map<number, number>();

  function change(appId: number, by: number): void {
    const count = (taken.get(appId) ?? 0) + by;
    if (count === 0) taken.delete(appId);
    else taken.set(appId, count);
  }

  return (appId) => {
    if ((taken.get(appId) ?? 0) >= max) {
      throw new ApiError(429, code, `The app has ${max} ${what} under way: wait for one of them to end.`, {
        headers: { 'Retry-After': '5' },
      });
    }
    change(appId, 1);
    let isHeld = true;
    return () => {
      if (isHeld) change(appId, -1);
      isHeld = false;
    };
  };
}
