import { z } from '@hono/zod-openapi';
import {
  type Condition,
  canonicalFieldValue,
  comparisonOperators,
  type DeviceField,
  type DeviceFieldCondition,
  deviceFields,
  type PropertyCondition,
} from '../../domain/audience.ts';
import { apnsEnvironments, platforms, providerNames } from '../../domain/device.ts';
import { exhausted } from '../../domain/exhausted.ts';
import { instant } from '../http/instant.ts';

const maxConditionDepth = 16;
const maxConditionNodes = 1_000;
/** The body limit of 1 MiB usually comes first. */
export const maxListItems = 100_000;

const scalar = z.union([z.string().max(1_024), z.number(), z.boolean()], { error: 'Must be text, number or boolean.' });
const value = z.union([scalar, z.array(scalar).min(1).max(maxListItems)]);

const propertyCondition = z
  .strictObject({
    property: z.string().min(1).max(128).openapi({ description: 'A key of the properties of a device.' }),
    operator: z.enum(comparisonOperators).openapi({
      description:
        'eq, ne, gt, gte, lt, lte compare values of one JSON type; contains: the property is a list that has the value; in: the value is a list that has the property; exists: value true or false. ne also holds where the property is missing.',
    }),
    value,
  })
  .superRefine((leaf, context) => refine(propertyValueProblem(leaf as PropertyCondition), context))
  .openapi('PropertyCondition');

const fieldCondition = z
  .strictObject({
    field: z.enum(deviceFields),
    operator: z.enum(['eq', 'ne', 'gt', 'gte', 'lt', 'lte', 'in', 'exists']),
    value,
  })
  .superRefine((leaf, context) => refine(fieldValueProblem(leaf as DeviceFieldCondition), context))
  .openapi('DeviceFieldCondition');

const children = () => z.array(anyCondition).min(1);

const anyCondition: z.ZodType<Condition, Condition> = z
  .lazy(() =>
    z.union([
      z.strictObject({ and: children() }),
      z.strictObject({ or: children() }),
      z.strictObject({ not: anyCondition }),
      propertyCondition,
      fieldCondition,
    ]),
  )
  .openapi('Condition') as z.ZodType<Condition, Condition>;

/** A whole condition: its size is limited beside its form. */
export const conditionSchema = anyCondition.superRefine((condition, context) => {
  const size = measure(condition);
  if (size.depth > maxConditionDepth) {
    context.addIssue({
      code: 'custom',
      message: `Nested ${size.depth} levels deep, ${maxConditionDepth} are allowed.`,
    });
  } else if (size.nodes > maxConditionNodes) {
    context.addIssue({ code: 'custom', message: `Has ${size.nodes} parts, ${maxConditionNodes} are allowed.` });
  }
});

function refine(message: string | undefined, context: z.core.$RefinementCtx): void {
  if (message !== undefined) context.addIssue({ code: 'custom', path: ['value'], message });
}

function propertyValueProblem({ operator, value: given }: PropertyCondition): string | undefined {
  switch (operator) {
    case 'exists':
      return typeof given === 'boolean' ? undefined : 'exists takes true or false.';
    case 'in':
      return Array.isArray(given) ? undefined : 'in takes a list.';
    case 'eq':
    case 'ne':
    case 'contains':
      return Array.isArray(given) ? `${operator} takes one value, in takes a list.` : undefined;
    case 'gt':
    case 'gte':
    case 'lt':
    case 'lte':
      return typeof given === 'number' || typeof given === 'string'
        ? undefined
        : `${operator} takes a number or a text (dates as ISO 8601).`;
    default:
      return exhausted(operator);
  }
}

function fieldValueProblem({ field, operator, value: given }: DeviceFieldCondition): string | undefined {
  if (operator === 'exists') return typeof given === 'boolean' ? undefined : 'exists takes true or false.';
  if ((operator === 'in') !== Array.isArray(given))
    return operator === 'in' ? 'in takes a list.' : `${operator} takes one value.`;
  const isPossible = [given]
    .flat()
    .every(
      (item) =>
        canonicalFieldValue({ field, operator }, item) !== undefined &&
        (field !== 'registered_at' || instant.safeParse(item).success),
    );
  return isPossible ? undefined : `${field} is ${possibleValues[field]}.`;
}

const possibleValues: Record<DeviceField, string> = {
  platform: `one of ${platforms.join(', ')}`,
  provider: `one of ${providerNames.join(', ')}`,
  apns_environment: `one of ${apnsEnvironments.join(', ')}`,
  locale: 'a language tag such as de or pt-BR',
  time_zone: 'an IANA time zone such as Europe/Berlin',
  bucket: 'a whole number from 1 to 10 000',
  registered_at: 'an ISO 8601 instant with an offset, 1970 or later',
  external_id: 'a text of 1 to 255 characters',
  user_id: 'a text of 1 to 255 characters',
};

function measure(condition: Condition): { depth: number; nodes: number } {
  const parts =
    'and' in condition ? condition.and : 'or' in condition ? condition.or : 'not' in condition ? [condition.not] : [];
  const sizes = parts.map(measure);
  return {
    depth: 1 + Math.max(0, ...sizes.map((size) => size.depth)),
    nodes: 1 + sizes.reduce((sum, size) => sum + size.nodes, 0),
  };
}
