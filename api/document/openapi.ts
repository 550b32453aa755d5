import { version } from '../../domain/version.ts';
import type { Router } from '../http/router.ts';

/** `/openapi.json`, generated from the schemas that validate, once. Call it after all routes are there. */
export function openApi(app: Router): void {
  app.openAPIRegistry.registerComponent('securitySchemes', 'bearer', {
    type: 'http',
    scheme: 'bearer',
    description:
      'An API key (ck_…), or a JWT of the issuer that is configured. Each operation names the scope that it needs.',
  });
  let document: object | undefined;
  app.get('/openapi.json', (c) => {
    document ??= describeStreams(
      app.getOpenAPI31Document({
        openapi: '3.1.0',
        info: {
          title: 'Carillon',
          version,
          description:
            'Sends very large push notifications through APNs and FCM and keeps exact books: every device of an audience ends with one recorded outcome. Errors are RFC 9457 problem documents with a stable `code`.',
          license: { name: 'MIT', url: 'https://spdx.org/licenses/MIT.html' },
        },
        security: [{ bearer: [] }],
        servers: [{ url: '/' }],
      }),
    );
    return c.json(document);
  });
}

/** JSON Schema 2020-12 says by `contentSchema` what the JSON inside a text is. */
const textOf = (mediaType: string, schema: unknown) => ({
  type: 'string',
  contentMediaType: mediaType,
  contentSchema: schema,
});

/**
 * Routes name the schema of one line, or of one event's data; the document must say what is on the wire: a text of such lines,
 * events that carry such a text.
 */
const onTheWire: Record<string, (schema: unknown) => object> = {
  'application/x-ndjson': (schema) => textOf('application/x-ndjson', schema),
  'text/event-stream': (schema) => ({
    type: 'object',
    properties: { event: { type: 'string' }, data: textOf('application/json', schema) },
    required: ['event', 'data'],
  }),
};

function describeStreams<T>(node: T): T {
  if (typeof node !== 'object' || node === null) return node;
  if (Array.isArray(node)) return node.map(describeStreams) as T;
  const entries = Object.entries(node).map(([key, value]) => {
    const describe = onTheWire[key];
    return [key, describe ? { ...value, schema: describe(value.schema) } : describeStreams(value)];
  });
  return Object.fromEntries(entries);
}
