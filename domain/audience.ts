import type { ApnsEnvironment, Platform, ProviderName } from './device.ts';

/**
 * Who a notification is for. All parts must hold; an empty object means every live device of the app.
 * Compiled to SQL in `db/audience.ts` and nowhere else.
 */
export interface Audience {
  /** Conditions on properties and device fields. */
  condition?: Condition;
  /** Only these devices. */
  externalIds?: string[];
  /** Only devices of these users. */
  userIds?: string[];
}

export type Condition =
  | { and: Condition[] }
  | { or: Condition[] }
  | { not: Condition }
  | PropertyCondition
  | DeviceFieldCondition;

export const comparisonOperators = ['eq', 'ne', 'gt', 'gte', 'lt', 'lte', 'contains', 'in', 'exists'] as const;
export type ComparisonOperator = (typeof comparisonOperators)[number];

export type ConditionScalar = string | number | boolean;

/**
 * A property of the device compared with a value. A comparison holds only between values of one JSON type: `gt 5` never
 * holds for the text "6". Dates are ISO 8601 texts and compare as text. `contains`: the property is a list that has the
 * value. `exists`: value true or false. `ne` also holds where the property is missing.
 */
export interface PropertyCondition {
  property: string;
  operator: ComparisonOperator;
  value: ConditionScalar | ConditionScalar[];
}

export const deviceFields = [
  'platform',
  'provider',
  'locale',
  'time_zone',
  'bucket',
  'registered_at',
  'apns_environment',
  'external_id',
  'user_id',
] as const;
export type DeviceField = (typeof deviceFields)[number];

/** A column of the device compared with a value; `registered_at` takes an ISO 8601 instant, `bucket` a number 1 to 10 000. */
export interface DeviceFieldCondition {
  field: DeviceField;
  operator: 'eq' | 'ne' | 'gt' | 'gte' | 'lt' | 'lte' | 'in' | 'exists';
  value: ConditionScalar | ConditionScalar[] | Platform | ProviderName | ApnsEnvironment;
}
