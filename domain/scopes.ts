/** What a key of an app can be allowed. There is no wildcard: a scope that comes later is not in a key that was made before. */
export const appScopes = [
  'devices:read',
  'devices:write',
  'notifications:read',
  'notifications:write',
  'notifications:send',
  'notifications:stop',
  'messages:read',
  'messages:send',
  'credentials:write',
  'events:write',
  'webhooks:write',
] as const;

/** `admin` (apps, keys, rates, the audit) belongs to no app: its keys name an app with each request. */
export const scopes = [...appScopes, 'admin'] as const;
export type Scope = (typeof scopes)[number];
