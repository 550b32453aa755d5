import type { DeviceRegistration } from '../domain/registration.ts';

/** An array for each column, as `unnest` takes them. A column in which all are null is null: `unnest` fills it up. */
export function registrationColumns(registrations: DeviceRegistration[]) {
  const column = <T>(of: (registration: DeviceRegistration) => T | null): T[] | null => {
    const values = registrations.map(of);
    return values.some((value) => value !== null) ? (values as T[]) : null;
  };
  return [
    column((r) => r.externalId),
    column((r) => r.userId),
    column((r) => r.provider),
    column((r) => r.platform),
    column((r) => r.deviceToken),
    column((r) => r.apnsEnvironment),
    column((r) => (r.properties ? JSON.stringify(r.properties) : null)),
    column((r) => r.locale),
    column((r) => r.timeZone),
  ];
}
