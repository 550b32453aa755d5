import { authenticate } from './access/authenticate.ts';
import { enterAsOperator } from './access/enter-as-operator.ts';
import { audiences } from './audiences/routes.ts';
import { deviceDeliveries } from './deliveries/of-device.ts';
import { notificationDeliveries } from './deliveries/of-notification.ts';
import type { ApiDependencies } from './dependencies.ts';
import { deviceImport } from './devices/import.ts';
import { devices } from './devices/routes.ts';
import { docs } from './document/docs.ts';
import { openApi } from './document/openapi.ts';
import { health } from './health/routes.ts';
import { checkUrl } from './http/check-url.ts';
import { describeRequest } from './http/describe-request.ts';
import { methodAnswers } from './http/methods.ts';
import { handleError } from './http/problems.ts';
import { createRouter } from './http/router.ts';
import { keys } from './keys/routes.ts';
import { messageBooks } from './messages/books.ts';
import { messages } from './messages/routes.ts';
import { audienceList } from './notifications/audience-list.ts';
import { notificationMoves } from './notifications/moves.ts';
import { notificationProgress } from './notifications/progress.ts';
import { notifications } from './notifications/routes.ts';

/** The whole HTTP API, for whatever serves a `fetch(request)`. */
export function createApp(deps: ApiDependencies) {
  const app = createRouter();
  app.onError(handleError);
  const { options, notFound } = methodAnswers(app);
  app.notFound(notFound);
  app.use(describeRequest(deps.log));
  app.use(checkUrl((path) => (path.startsWith('/v1/devices/') ? 'external_id' : 'path')));
  // Before the key is asked for: it says nothing that the document does not.
  app.options('*', options);
  app.route('/', health(deps));
  app.route('/', docs(deps));

  app.use('/v1/*', deps.operator === undefined ? authenticate(deps) : enterAsOperator(deps, deps.operator));
  // Before devices: "import" would otherwise be the external id of a device.
  app.route('/', deviceImport(deps));
  app.route('/', devices(deps));
  app.route('/', deviceDeliveries(deps));
  app.route('/', audiences(deps));
  // Before messages: "stats" would otherwise be the id of a message.
  app.route('/', messageBooks(deps));
  app.route('/', messages(deps));
  app.route('/', notifications(deps));
  app.route('/', audienceList(deps));
  app.route('/', notificationMoves(deps));
  app.route('/', notificationDeliveries(deps));
  app.route('/', notificationProgress(deps));
  app.route('/', keys(deps));
  openApi(app);
  return app;
}
