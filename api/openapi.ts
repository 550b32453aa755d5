import type { OpenAPIHono } from '@hono/zod-openapi';
import type { ApiEnv } from './dependencies.ts';

/** `/openapi.json`, generated from the schemas that validate, once. Call it after all routes are there. */
export function openApi(app: OpenAPIHono<ApiEnv>): void {
  app.openAPIRegistry.registerComponent('securitySchemes', 'bearer', {
    type: 'http',
    scheme: 'bearer',
    description: 'An API key (ck_…), or a JWT of the issuer that is configured.',
  });
  let document: object | undefined;
  app.get('/openapi.json', (c) => {
    document ??= app.getOpenAPI31Document({
      openapi: '3.1.0',
      info: {
        title: 'Carillon',
        version: '0.1.0',
        description:
          'Sends very large push notifications through APNs and FCM and keeps exact books: every device of an audience ends with one recorded outcome. Errors are RFC 9457 problem documents with a stable `code`.',
        license: { name: 'MIT', url: 'https://spdx.org/licenses/MIT.html' },
      },
      security: [{ bearer: [] }],
      servers: [{ url: '/' }],
    });
    return c.json(document);
  });
}
