/**
 * A device token as somebody registers it, brought to the one form in which it is stored, compared and sent; or a sentence for
 * the caller, of which the token itself is never a part.
 */
export type DeviceTokenResult = { ok: true; deviceToken: string } | { ok: false; message: string };

export function refused(message: string): DeviceTokenResult {
  return { ok: false, message };
}
