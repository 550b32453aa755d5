import { z } from '@hono/zod-openapi';
import type { Audience } from '../../domain/audience.ts';
import type { Listed } from '../../domain/notification.ts';
import { count } from '../http/counts.ts';
import { conditionSchema, maxListItems } from './condition-schema.ts';

const ids = z.array(z.string().min(1).max(255)).min(1).max(maxListItems);

/** Generated examples show every field at once, which no request should have. */
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
    condition: conditionSchema.optional(),
    external_ids: ids.optional().openapi({ description: 'Only these devices.' }),
    user_ids: ids.optional().openapi({ description: 'Only devices of these users.' }),
  })
  .openapi('Audience', {
    description: 'All parts must hold; an empty object means every live device of the app.',
    example: audienceExample,
  });

const onlyUploaded = z.literal(true).openapi({
  description:
    'Only devices of the list that is uploaded for this notification with PUT /v1/notifications/{id}/audience-list: no device before the upload.',
});

/** Of a notification, which can have a list of its own. */
export const notificationAudienceSchema = z
  .strictObject({ ...audienceSchema.shape, uploaded: onlyUploaded.optional() })
  .openapi('NotificationAudience', {
    description: 'All parts must hold; an empty object means every live device of the app.',
    example: audienceExample,
  });

export function toAudience(body: z.infer<typeof notificationAudienceSchema>): Audience {
  return {
    ...(body.condition && { condition: body.condition }),
    ...(body.external_ids && { externalIds: body.external_ids }),
    ...(body.user_ids && { userIds: body.user_ids }),
    ...(body.uploaded && { uploaded: body.uploaded }),
  };
}

export function fromAudience(audience: Audience): z.infer<typeof notificationAudienceSchema> {
  return {
    ...(audience.condition && { condition: audience.condition }),
    ...(audience.externalIds && { external_ids: audience.externalIds }),
    ...(audience.userIds && { user_ids: audience.userIds }),
    ...(audience.uploaded && { uploaded: audience.uploaded }),
  };
}

// Without names of their own: a reference cannot say that it may be null.
export const listedCountsSchema = z.object({
  listed: count.openapi({ description: 'Ids: each once, but the lines of an upload as they come.' }),
  matched: count.openapi({ description: 'Ids that have a device.' }),
  live: count.openapi({ description: 'Ids that have a device that can be sent to.' }),
});

export const listedSchema = z.object({
  external_ids: listedCountsSchema.nullable(),
  user_ids: listedCountsSchema.nullable(),
  uploaded: listedCountsSchema.nullable(),
});

export function fromListed(listed: Listed): z.infer<typeof listedSchema> {
  return {
    external_ids: listed.externalIds ?? null,
    user_ids: listed.userIds ?? null,
    uploaded: listed.uploaded ?? null,
  };
}
