import { type Expression, type RawBuilder, type SqlBool, sql } from 'kysely';
import {
  type Audience,
  type ComparisonOperator,
  type Condition,
  type ConditionScalar,
  canonicalFieldValue,
  type DeviceField,
  type DeviceFieldCondition,
  type PropertyCondition,
} from '../domain/audience.ts';

/**
 * The audience as a condition on table `devices`: live devices of the app that meet every part of it. The one place where
 * an audience becomes SQL. Values, keys and lists are bound parameters, a list being one array, so that 70 000 external
 * ids are one parameter. Every leaf is true or false, never null, so that `not` means what it says.
 */
export function audienceFilter(appId: number, audience: Audience): Expression<SqlBool> {
  const parts = [
    sql<SqlBool>`devices.app_id = ${appId}`,
    sql<SqlBool>`devices.retired_at is null`,
    sql<SqlBool>`devices.device_token is not null`,
  ];
  if (audience.externalIds) parts.push(sql<SqlBool>`devices.external_id = any(${audience.externalIds}::text[])`);
  if (audience.userIds) parts.push(sql<SqlBool>`devices.user_id = any(${audience.userIds}::text[])`);
  if (audience.condition) parts.push(conditionFilter(audience.condition));
  return sql<SqlBool>`(${sql.join(parts, sql` and `)})`;
}

/** The condition alone, over devices live or not. */
export function conditionFilter(condition: Condition): RawBuilder<SqlBool> {
  if ('and' in condition) return junction(condition.and, sql` and `, sql<SqlBool>`true`);
  if ('or' in condition) return junction(condition.or, sql` or `, sql<SqlBool>`false`);
  if ('not' in condition) return sql<SqlBool>`(not ${conditionFilter(condition.not)})`;
  return 'property' in condition ? propertyFilter(condition) : fieldFilter(condition);
}

function junction(parts: Condition[], operator: RawBuilder<unknown>, ofNone: RawBuilder<SqlBool>): RawBuilder<SqlBool> {
  return parts.length === 0 ? ofNone : sql<SqlBool>`(${sql.join(parts.map(conditionFilter), operator)})`;
}

function propertyFilter({ property, operator, value }: PropertyCondition): RawBuilder<SqlBool> {
  const stored = sql`(devices.properties -> ${property}::text)`;
  switch (operator) {
    case 'exists':
      return sql<SqlBool>`((devices.properties ? ${property}::text) = ${value === true}::boolean)`;
    case 'ne':
      return sql<SqlBool>`(${stored} is distinct from ${JSON.stringify(value)}::jsonb)`;
    case 'eq':
      return certain(sql`${stored} = ${JSON.stringify(value)}::jsonb`);
    case 'in':
      return certain(sql`${stored} = any(${listOf(value).map((item) => JSON.stringify(item))}::jsonb[])`);
    case 'contains':
      return certain(sql`jsonb_typeof(${stored}) = 'array' and ${stored} @> ${JSON.stringify([value].flat())}::jsonb`);
    default:
      return orderFilter(property, stored, operator, value);
  }
}

/**
 * jsonb orders values of different types too, and texts by the database's collation; the type check and the byte order of
 * collation "C" make `gt` mean the same in every installation.
 */
function orderFilter(
  property: string,
  stored: RawBuilder<unknown>,
  operator: OrderOperator,
  value: PropertyCondition['value'],
): RawBuilder<SqlBool> {
  if (typeof value === 'string') {
    const text = sql`(devices.properties ->> ${property}::text)`;
    return certain(
      sql`jsonb_typeof(${stored}) = 'string' and ${text} collate "C" ${orderSymbols[operator]} ${value}::text`,
    );
  }
  return certain(
    sql`jsonb_typeof(${stored}) = ${typeof value}::text and ${stored} ${orderSymbols[operator]} ${JSON.stringify(value)}::jsonb`,
  );
}

function fieldFilter(condition: DeviceFieldCondition): RawBuilder<SqlBool> {
  const { field, operator } = condition;
  const { column, type } = fieldColumns[field];
  // Here, so that drafts from before a value had one form are asked in it as well.
  const values = listOf(condition.value).map((item) => canonicalFieldValue(condition, item) ?? item);
  const value = values[0];
  const comparable = type === textType ? sql`${column} collate "C"` : column;
  switch (operator) {
    case 'exists':
      return sql<SqlBool>`((${column} is not null) = ${value === true}::boolean)`;
    case 'ne':
      return sql<SqlBool>`(${column} is distinct from ${value}::${type})`;
    case 'eq':
      return certain(sql`${column} = ${value}::${type}`);
    case 'in':
      return certain(sql`${column} = any(${values}::${type}[])`);
    default:
      return certain(sql`${comparable} ${orderSymbols[operator]} ${value}::${type}`);
  }
}

type OrderOperator = Extract<ComparisonOperator, 'gt' | 'gte' | 'lt' | 'lte'>;

const orderSymbols: Record<OrderOperator, RawBuilder<unknown>> = {
  gt: sql`>`,
  gte: sql`>=`,
  lt: sql`<`,
  lte: sql`<=`,
};

const textType = sql`text`;

const fieldColumns: Record<DeviceField, { column: RawBuilder<unknown>; type: RawBuilder<unknown> }> = {
  platform: { column: sql`devices.platform`, type: textType },
  provider: { column: sql`devices.provider`, type: textType },
  locale: { column: sql`devices.locale`, type: textType },
  time_zone: { column: sql`devices.time_zone`, type: textType },
  apns_environment: { column: sql`devices.apns_environment`, type: textType },
  external_id: { column: sql`devices.external_id`, type: textType },
  user_id: { column: sql`devices.user_id`, type: textType },
  bucket: { column: sql`devices.bucket`, type: sql`float8` },
  // In milliseconds, as it is shown: PostgreSQL keeps microseconds, which no caller ever sees.
  registered_at: { column: sql`date_trunc('milliseconds', devices.registered_at)`, type: sql`timestamptz` },
};

function certain(comparison: RawBuilder<unknown>): RawBuilder<SqlBool> {
  return sql<SqlBool>`coalesce(${comparison}, false)`;
}

function listOf(value: ConditionScalar | ConditionScalar[]): ConditionScalar[] {
  return Array.isArray(value) ? value : [value];
}
