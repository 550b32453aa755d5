import { Hono } from 'hono';
import type { ApiDependencies } from '../dependencies.ts';
import { notFound } from '../http/api-error.ts';
import type { ApiEnv } from '../http/env.ts';

/** Everything from this origin; Swagger UI sets styles on elements and has its icons as data URLs. */
const contentSecurityPolicy = [
  "default-src 'none'",
  "script-src 'self'",
  "style-src 'self' 'unsafe-inline'",
  "img-src 'self' data:",
  "font-src 'self' data:",
  "connect-src 'self'",
  "base-uri 'none'",
  "form-action 'none'",
  "frame-ancestors 'none'",
].join('; ');

const page = `<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Carillon API</title>
<link rel="stylesheet" href="/docs/assets/swagger-ui.css">
<link rel="icon" type="image/png" href="/docs/assets/favicon-32x32.png">
</head>
<body>
<div id="swagger-ui"></div>
<script src="/docs/assets/swagger-ui-bundle.js"></script>
<script src="/docs/start.js"></script>
</body>
</html>
`;

const start = `SwaggerUIBundle({ url: '/openapi.json', dom_id: '#swagger-ui', deepLinking: true, validatorUrl: null, persistAuthorization: true });
`;

/** The API reference: Swagger UI over `/openapi.json`, without any outside host. */
export function docs({ docsAssets }: ApiDependencies) {
  const app = new Hono<ApiEnv>();
  if (!docsAssets) return app;
  return app
    .use('/docs/*', async (c, next) => {
      await next();
      c.header('Content-Security-Policy', contentSecurityPolicy);
      c.header('Referrer-Policy', 'no-referrer');
    })
    .get('/docs', (c) => c.html(page))
    .get('/docs/start.js', (c) => c.body(start, 200, { 'Content-Type': 'text/javascript; charset=utf-8' }))
    .get('/docs/assets/:name', (c) => {
      const name = c.req.param('name');
      const asset = Object.hasOwn(docsAssets, name) ? docsAssets[name] : undefined;
      if (!asset) throw notFound('file');
      return c.body(asset.body, 200, { 'Content-Type': asset.contentType, 'Cache-Control': 'public, max-age=3600' });
    });
}
