import { z } from '@hono/zod-openapi';

/** Of paths that name their app: it is in `c.var.app` by the time that a handler runs. */
export const appParams = z.object({ app: z.string().openapi({ description: 'Its name.', example: 'default' }) });
