/**
 * The apns-id of a delivery: a version 8 UUID (RFC 9562 §5.8) made of the notification's id and the device's row id in hex as its
 * last twelve digits. The same on every attempt, different for every device, and readable by the operator on call.
 */
export function apnsId(notificationId: string, deviceId: number): string {
  return apnsIdPrefix(notificationId) + apnsIdSuffix(deviceId);
}

export function apnsIdPrefix(notificationId: string): string {
  return `${notificationId.slice(0, 14)}8${notificationId.slice(15, 24)}`;
}

export function apnsIdSuffix(deviceId: number): string {
  return deviceId.toString(16).padStart(12, '0');
}

/** What an apns-id tells of its notification: `apnsIdPrefix`. Undefined for an apns-id of another form. */
export function prefixOfApnsId(apnsId: string): string | undefined {
  return apnsId.length === 36 && apnsId[14] === '8' ? apnsId.slice(0, 24) : undefined;
}
