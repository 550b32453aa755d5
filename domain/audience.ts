import {
  type ApnsEnvironment,
  apnsEnvironments,
  type Platform,
  type ProviderName,
  platforms,
  providerNames,
} from './device.ts';
import { canonicalLocale } from './locale.ts';
import { canonicalTimeZone } from './time-zone.ts';

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
  /** Only devices of the list uploaded for the notification; no device as long as there is no list. */
  uploaded?: true;
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
 * A property of the device compared with a value. A comparison holds only between values of one JSON type: `gt 5` never holds for
 * the text "6". Dates are ISO 8601 texts and compare as text. `contains`: the property is a list that holds the value. `exists`:
 * value true or false. `ne` also holds where the property is missing.
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

/**
 * A column of the device compared with a value; `registered_at` takes an ISO 8601 instant and compares in milliseconds, as it
 * is shown; `bucket` a number 1 to 10 000. Locales and time zones mean the same however they are written.
 */
export interface DeviceFieldCondition {
  field: DeviceField;
  operator: 'eq' | 'ne' | 'gt' | 'gte' | 'lt' | 'lte' | 'in' | 'exists';
  value: ConditionScalar | ConditionScalar[] | Platform | ProviderName | ApnsEnvironment;
}

/**
 * The form in which devices store the value that a condition asks for; undefined when no device can have it. A value that is only
 * compared by order need not be one that a device can have: `locale gte "de"`, `bucket lt 10001`.
 */
export function canonicalFieldValue(
  { field, operator }: Pick<DeviceFieldCondition, 'field' | 'operator'>,
  value: ConditionScalar,
): ConditionScalar | undefined {
  const isOrder = operator === 'gt' || operator === 'gte' || operator === 'lt' || operator === 'lte';
  if (field === 'bucket') {
    if (typeof value !== 'number') return undefined;
    return isOrder || (Number.isInteger(value) && value >= 1 && value <= 10_000) ? value : undefined;
  }
  if (typeof value !== 'string') return undefined;
  switch (field) {
    case 'locale':
      return canonicalLocale(value) ?? (isOrder ? value : undefined);
    case 'time_zone':
      return canonicalTimeZone(value) ?? (isOrder ? value : undefined);
    case 'registered_at': {
      const ms = Date.parse(value);
      return ms >= 0 ? new Date(ms).toISOString() : undefined;
    }
    case 'external_id':
    case 'user_id':
      return isOrder || (value !== '' && [...value].length <= 255) ? value : undefined;
    default:
      return (allowedTexts[field] as readonly string[]).includes(value) ? value : undefined;
  }
}

const allowedTexts = { platform: platforms, provider: providerNames, apns_environment: apnsEnvironments };
