import { authenticate } from './access/authenticate.ts';
import { enterAsOperator } from './access/enter-as-operator.ts';
import { limitRequests } from './access/limit-requests.ts';
import { limitPlaces } from './access/places.ts';
import { rates } from './apps/rates.ts';
import { apps } from './apps/routes.ts';
import { audiences } from './audiences/routes.ts';
import { audit } from './audit/routes.ts';
import { credentials } from './credentials/routes.ts';
import { deviceDeliveries } from './deliveries/of-device.ts';
import { messageDeliveries } from './deliveries/of-messages.ts';
import { notificationDeliveries } from './deliveries/of-notification.ts';
import type { ApiDependencies } from './dependencies.ts';
import { DeviceLimit } from './devices/device-limit.ts';
import { deviceImport } from './devices/import.ts';
import { deviceListing } from './devices/listing.ts';
import { devices } from './devices/routes.ts';
import { docs } from './document/docs.ts';
import { openApi } from './document/openapi.ts';
import { eventsOfSend } from './events/of-send.ts';
import { events } from './events/routes.ts';
import { health } from './health/routes.ts';
import { checkUrl } from './http/check-url.ts';
import { describeRequest } from './http/describe-request.ts';
import { methodAnswers } from './http/methods.ts';
import { handleError } from './http/problems.ts';
import { createRouter } from './http/router.ts';
import { traceRequests } from './http/trace-requests.ts';
import { keys } from './keys/routes.ts';
import { messageBooks } from './messages/books.ts';
import { messages } from './messages/routes.ts';
import { audienceList } from './notifications/audience-list.ts';
import { notificationMoves } from './notifications/moves.ts';
import { notificationProgress } from './notifications/progress.ts';
import { notifications } from './notifications/routes.ts';
import { webhookDeliveries } from './webhooks/deliveries.ts';
import { webhooks } from './webhooks/routes.ts';

/** The whole HTTP API, for whatever serves a `fetch(request)`. */
export function createApp(deps: ApiDependencies) {
  const app = createRouter();
  app.onError(handleError);
  const { options, notFound } = methodAnswers(app);
  app.notFound(notFound);
  app.use(describeRequest(deps.log));
  app.use(checkUrl((path) => (path.startsWith('/v1/devices/') ? 'external_id' : 'path')));
  app.use('/v1/*', traceRequests(deps.tracing));
  // Before the key is asked for: it says nothing that the document does not.
  app.options('*', options);
  app.route('/', health(deps));
  app.route('/', docs(deps));

  // HEAD is answered by GET: what would stream its body must not wait for a reader.
  app.use(async (c, next) => {
    await next();
    if (c.req.method === 'HEAD') await c.res.body?.cancel();
  });
  app.use('/v1/*', deps.operator === undefined ? authenticate(deps) : enterAsOperator(deps, deps.operator));
  app.use('/v1/*', limitRequests(deps));
  const imports = limitPlaces(deps.importsPerApp ?? 4, 'too_many_imports', 'imports');
  const eventStreams = limitPlaces(deps.importsPerApp ?? 4, 'too_many_event_streams', 'streams of events');
  const exports = limitPlaces(deps.exportsPerApp ?? 20, 'too_many_exports', 'exports and progress streams');
  // Before devices: "import" would otherwise be the external id of a device.
  const deviceLimit = new DeviceLimit(deps.db);
  app.route('/', deviceImport(deps, imports, deviceLimit));
  app.route('/', devices(deps, deviceLimit));
  app.route('/', deviceListing(deps, exports));
  app.route('/', deviceDeliveries(deps));
  app.route('/', audiences(deps));
  // Before messages: "stats" and "deliveries" would otherwise be ids of messages.
  app.route('/', messageBooks(deps));
  app.route('/', messageDeliveries(deps, exports));
  app.route('/', messages(deps));
  app.route('/', notifications(deps, exports));
  app.route('/', audienceList(deps, imports));
  app.route('/', notificationMoves(deps));
  app.route('/', notificationDeliveries(deps, exports));
  app.route('/', notificationProgress(deps, exports));
  app.route('/', events(deps, eventStreams));
  app.route('/', eventsOfSend(deps));
  app.route('/', apps(deps));
  app.route('/', rates(deps));
  app.route('/', keys(deps));
  app.route('/', credentials(deps));
  app.route('/', webhooks(deps));
  app.route('/', webhookDeliveries(deps));
  app.route('/', audit(deps));
  openApi(app);
  return app;
}
