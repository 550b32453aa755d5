/** The fields of FCM's message resource (HTTP v1), by which proto3 JSON is parsed: both spellings of every name. */

export type FieldType =
  | 'string'
  | 'boolean'
  | 'number'
  | 'stringMap'
  | 'duration'
  | 'timestamp'
  | 'struct'
  | 'strings'
  | 'durations'
  | readonly string[]
  | MessageFields;

export interface MessageFields {
  readonly [name: string]: FieldType;
}

const analytics = { analytics_label: 'string' } as const;

const lightColor = { red: 'number', green: 'number', blue: 'number', alpha: 'number' } as const;

const notificationPriorities = ['UNSPECIFIED', 'MIN', 'LOW', 'DEFAULT', 'HIGH', 'MAX'].map((p) => `PRIORITY_${p}`);

const androidNotification: MessageFields = {
  title: 'string',
  body: 'string',
  icon: 'string',
  color: 'string',
  sound: 'string',
  tag: 'string',
  click_action: 'string',
  body_loc_key: 'string',
  body_loc_args: 'strings',
  title_loc_key: 'string',
  title_loc_args: 'strings',
  channel_id: 'string',
  ticker: 'string',
  sticky: 'boolean',
  event_time: 'timestamp',
  local_only: 'boolean',
  notification_priority: notificationPriorities,
  default_sound: 'boolean',
  default_vibrate_timings: 'boolean',
  default_light_settings: 'boolean',
  vibrate_timings: 'durations',
  visibility: ['VISIBILITY_UNSPECIFIED', 'PRIVATE', 'PUBLIC', 'SECRET'],
  notification_count: 'number',
  light_settings: { color: lightColor, light_on_duration: 'duration', light_off_duration: 'duration' },
  image: 'string',
  bypass_proxy_notification: 'boolean',
  proxy: ['PROXY_UNSPECIFIED', 'ALLOW', 'DENY', 'IF_PRIORITY_LOWERED'],
};

const message: MessageFields = {
  name: 'string',
  token: 'string',
  fid: 'string',
  topic: 'string',
  condition: 'string',
  data: 'stringMap',
  notification: { title: 'string', body: 'string', image: 'string' },
  fcm_options: analytics,
  android: {
    collapse_key: 'string',
    priority: ['NORMAL', 'HIGH'],
    ttl: 'duration',
    restricted_package_name: 'string',
    data: 'stringMap',
    direct_boot_ok: 'boolean',
    bandwidth_constrained_ok: 'boolean',
    restricted_satellite_ok: 'boolean',
    fcm_options: analytics,
    notification: androidNotification,
  },
  webpush: {
    headers: 'stringMap',
    data: 'stringMap',
    notification: 'struct',
    fcm_options: { link: 'string', analytics_label: 'string' },
  },
  apns: {
    headers: 'stringMap',
    payload: 'struct',
    live_activity_token: 'string',
    fcm_options: { analytics_label: 'string', image: 'string' },
  },
};

export const sendRequestFields: MessageFields = { validate_only: 'boolean', message };

/** The definition's own name of a field in either spelling; undefined when there is no such field. */
export function canonicalName(fields: MessageFields, name: string): string | undefined {
  if (Object.hasOwn(fields, name)) return name;
  const snake = name.replace(/[A-Z]/g, (letter) => `_${letter.toLowerCase()}`);
  return Object.hasOwn(fields, snake) ? snake : undefined;
}
