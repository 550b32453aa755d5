import type { MiddlewareHandler } from 'hono';
import { authenticate } from './access/authenticate.ts';
import { audience } from './audiences/routes.ts';
import { deviceNotifications } from './deliveries/of-device.ts';
import { deliveries } from './deliveries/of-notification.ts';
import type { ApiDependencies, ApiEnv } from './dependencies.ts';
import { importDevices } from './devices/import.ts';
import { devices } from './devices/routes.ts';
import { docs } from './document/docs.ts';
import { openApi } from './document/openapi.ts';
import { health } from './health.ts';
import { readJsonBody } from './http/json-body.ts';
import { methodAnswers } from './http/methods.ts';
import { ApiError, handleError } from './http/problems.ts';
import { createRouter } from './http/router.ts';
import { unstorableText } from './http/storable.ts';
import { audienceList } from './notifications/audience-list.ts';
import { notificationMoves } from './notifications/moves.ts';
import { progress } from './notifications/progress.ts';
import { notifications } from './notifications/routes.ts';

/** Bodies of any length, which their routes read as they come. */
const streamed = /^POST \/v1\/devices\/import$|^PUT \/v1\/notifications\/[^/]+\/audience-list$/;

/** The whole HTTP API, for whatever serves a `fetch(request)`. */
export function createApp(deps: ApiDependencies) {
  const app = createRouter();
  app.onError(handleError);
  const { options, notFound } = methodAnswers(app);
  app.notFound(notFound);
  app.use(describeRequest(deps));
  // Before the key is asked for: it says nothing that the document does not.
  app.options('*', options);
  app.route('/', health(deps));
  app.route('/', docs(deps));

  app.use('/v1/*', authenticate(deps));
  const readBody = readJsonBody();
  app.use('/v1/*', (c, next) => (streamed.test(`${c.req.method} ${c.req.path}`) ? next() : readBody(c, next)));
  // Before devices: "import" would otherwise be somebody's external id.
  app.route('/', importDevices(deps));
  app.route('/', devices(deps));
  app.route('/', deviceNotifications(deps));
  app.route('/', audience(deps));
  app.route('/', notifications(deps));
  app.route('/', audienceList(deps));
  app.route('/', notificationMoves(deps));
  app.route('/', deliveries(deps));
  app.route('/', progress(deps));
  openApi(app);
  return app;
}

/** An id and a logger for the request, one line in the log after it, and a first look at its URL. */
function describeRequest({ log }: ApiDependencies): MiddlewareHandler<ApiEnv> {
  return async function describeRequest(c, next) {
    const startedAt = performance.now();
    const requestId = crypto.randomUUID();
    c.set('requestId', requestId);
    c.set('log', log);
    c.header('X-Request-Id', requestId);
    c.header('X-Content-Type-Options', 'nosniff');
    checkUrl(c.req.url);
    await next();
    // The pattern, not the path: external ids are somebody's.
    const fields = { requestId, method: c.req.method, route: c.req.routePath, status: c.res.status };
    log.debug({ ...fields, ms: Math.round(performance.now() - startedAt) }, 'request');
  };
}

/** What no route could take: escapes that are not UTF-8 (400), NUL (422 with the name of the parameter). */
function checkUrl(text: string): void {
  // Node refuses a malformed Host header before anybody sees it, Deno makes a URL of it.
  if (!URL.canParse(text)) throw new ApiError(400, 'malformed_request', 'The Host header makes no valid URL.');
  const url = new URL(text);
  let path: string;
  try {
    path = decodeURIComponent(url.pathname);
    decodeURIComponent(url.search.replaceAll('+', ' '));
  } catch (cause) {
    throw new ApiError(400, 'invalid_encoding', 'The URL has escapes that are not UTF-8.', { cause });
  }
  const inPath = unstorableText(path);
  const field = path.startsWith('/v1/devices/') ? 'external_id' : 'path';
  if (inPath !== undefined) throw new ApiError(422, 'invalid_input', inPath, { errors: [{ field, message: inPath }] });
  for (const [name, value] of url.searchParams) {
    const message = unstorableText(value);
    if (message !== undefined) {
      throw new ApiError(422, 'invalid_input', message, { errors: [{ field: name, message }] });
    }
  }
}
