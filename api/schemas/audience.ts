import { z } from '@hono/zod-openapi';
import {
  type Audience,
  type Condition,
  comparisonOperators,
  type DeviceField,
  type DeviceFieldCondition,
  deviceFields,
  type PropertyCondition,
} from '../../domain/audience.ts';
import { apnsEnvironments, platforms, providerNames } from '../../domain/device.ts';
import { instant } from './common.ts';

export const maxConditionDepth = 16;
export const maxConditionNodes = 1_000;
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

const children = () => z.array(conditionSchema).min(1);

export const conditionSchema: z.ZodType<Condition, Condition> = z
  .lazy(() =>
    z.union([
      z.strictObject({ and: children() }),
      z.strictObject({ or: children() }),
      z.strictObject({ not: conditionSchema }),
      propertyCondition,
      fieldCondition,
    ]),
  )
  .openapi('Condition') as z.ZodType<Condition, Condition>;

const ids = z.array(z.string().min(1).max(255)).min(1).max(maxListItems);

/** The whole condition: its size is limited beside its form. */
export const wholeCondition = conditionSchema.superRefine((condition, context) => {
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

/** Generated ones show every field at once, which no request should have. */
export const audienceExample = {
  condition: {
    and: [
      { property: 'city', operator: 'in', value: ['Kyoto', 'Osaka'] },
      { property: 'visits', operator: 'gte', value: 3 },
      { field: 'platform', operator: 'eq', value: 'ios' },
    ],
  },
};

export const audienceSchema = z
  .strictObject({
    condition: wholeCondition.optional(),
    external_ids: ids.optional().openapi({ description: 'Only these devices.' }),
    user_ids: ids.optional().openapi({ description: 'Only devices of these users.' }),
  })
  .openapi('Audience', {
    description: 'All parts must hold; an empty object means every live device of the app.',
    example: audienceExample,
  });

export function toAudience(body: z.infer<typeof audienceSchema>): Audience {
  return {
    ...(body.condition && { condition: body.condition }),
    ...(body.external_ids && { externalIds: body.external_ids }),
    ...(body.user_ids && { userIds: body.user_ids }),
  };
}

export function fromAudience(audience: Audience): z.infer<typeof audienceSchema> {
  return {
    ...(audience.condition && { condition: audience.condition }),
    ...(audience.externalIds && { external_ids: audience.externalIds }),
    ...(audience.userIds && { user_ids: audience.userIds }),
  };
}

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
    default:
      return typeof given === 'number' || typeof given === 'string'
        ? undefined
        : `${operator} takes a number or a text (dates as ISO 8601).`;
  }
}

const allowedTexts: Partial<Record<DeviceField, readonly string[]>> = {
  platform: platforms,
  provider: providerNames,
  apns_environment: apnsEnvironments,
};

function fieldValueProblem({ field, operator, value: given }: DeviceFieldCondition): string | undefined {
  if (operator === 'exists') return typeof given === 'boolean' ? undefined : 'exists takes true or false.';
  if ((operator === 'in') !== Array.isArray(given))
    return operator === 'in' ? 'in takes a list.' : `${operator} takes one value.`;
  for (const item of Array.isArray(given) ? given : [given]) {
    const message = fieldItemProblem(field, item);
    if (message !== undefined) return message;
  }
  return undefined;
}

function fieldItemProblem(field: DeviceField, item: unknown): string | undefined {
  if (field === 'bucket') return typeof item === 'number' ? undefined : 'bucket is a number from 1 to 10 000.';
  if (field === 'registered_at') {
    return instant.safeParse(item).success && Date.parse(String(item)) >= 0
      ? undefined
      : 'registered_at is an ISO 8601 instant with an offset, 1970 or later.';
  }
  if (typeof item !== 'string') return `${field} is a text.`;
  const allowed = allowedTexts[field];
  return allowed && !allowed.includes(item) ? `${field} is one of ${allowed.join(', ')}.` : undefined;
}

function measure(condition: Condition): { depth: number; nodes: number } {
  const parts =
    'and' in condition ? condition.and : 'or' in condition ? condition.or : 'not' in condition ? [condition.not] : [];
  const sizes = parts.map(measure);
  return {
    depth: 1 + Math.max(0, ...sizes.map((size) => size.depth)),
    nodes: 1 + sizes.reduce((sum, size) => sum + size.nodes, 0),
  };
}
