/**
 * A device token as a caller registers it, brought to the one form in which it is stored, compared and sent; or a sentence for
 * the caller, which never holds the token.
 */
export type DeviceTokenResult = { ok: true; deviceToken: string } | { ok: false; message: string };

export function refused(message: string): DeviceTokenResult {
  return { ok: false, message };
}
