import { createApp } from '../../api/app.ts';
import type { ApiDependencies } from '../../api/dependencies.ts';
import type { NotificationWaker } from '../../api/notifications/waker.ts';
import { insertApiKey } from '../../db/api-keys.ts';
import type { Logger } from '../../domain/logger.ts';
import { appScopes } from '../../domain/scopes.ts';
import { createTestDatabase, type TestDatabase } from '../support/database.ts';
import { createDocument, mediaTypeOf } from './document.ts';

export interface TestApi {
  database: TestDatabase;
  key: string;
  /** Ids in the order in which their workflows were woken. */
  woken: string[];
  /** What was logged as an error: 500s and 503s. */
  errors: Record<string, unknown>[];
  /** Holds every answer to the OpenAPI document, and the body of every request that was taken. */
  app: Pick<ReturnType<typeof createApp>, 'routes'> & { request(path: string, init?: RequestInit): Promise<Response> };
  /** With the key; an object as body is sent as JSON, anything else as it is. */
  request(method: string, path: string, body?: unknown, headers?: Record<string, string>): Promise<Answer>;
  close(): Promise<void>;
}

export interface Answer {
  status: number;
  headers: Headers;
  // biome-ignore lint/suspicious/noExplicitAny: tests look into answers of every shape.
  body: any;
  text: string;
}

export async function createTestApi(overrides: Partial<ApiDependencies> = {}): Promise<TestApi> {
  const database = await createTestDatabase();
  const key = await insertApiKey(database.db, { appId: 1, name: 'test', scopes: appScopes });
  const woken: string[] = [];
  const errors: Record<string, unknown>[] = [];
  const nothing = () => {};
  const log: Logger = { debug: nothing, info: nothing, warn: nothing, error: (fields) => errors.push({ ...fields }) };
  const waker: NotificationWaker = {
    async wake({ id }) {
      woken.push(id);
      return 'woken';
    },
    deleteApp: async () => 'woken',
    check: async () => 'reachable',
  };
  const bare = createApp({
    db: database.db,
    pool: database.pool,
    waker,
    log,
    progressIntervalMs: 20,
    readinessTtlMs: 0,
    ...overrides,
  });
  const document = createDocument((await (await bare.request('/openapi.json')).json()) as never);
  const app: TestApi['app'] = {
    routes: bare.routes,
    async request(path, init = {}) {
      const { method = 'GET', body } = init;
      const answer = await bare.request(path, init);
      await document.checkAnswer(method, path, answer);
      if (
        answer.ok &&
        method !== 'OPTIONS' &&
        path.startsWith('/v1/') &&
        (body === undefined || typeof body === 'string')
      ) {
        document.checkTaken(method, path, mediaTypeOf(new Headers(init.headers)), body ?? '');
      }
      return answer;
    },
  };
  return {
    database,
    key,
    woken,
    errors,
    app,
    async request(method, path, body, headers = {}) {
      const isJson = body !== undefined && typeof body !== 'string' && !(body instanceof Uint8Array);
      const response = await app.request(path, {
        method,
        headers: {
          authorization: `Bearer ${key}`,
          ...(body !== undefined && { 'content-type': 'application/json' }),
          ...headers,
        },
        ...(body !== undefined && { body: isJson ? JSON.stringify(body) : (body as string) }),
      });
      const text = await response.text();
      document.checkStream(method, path, mediaTypeOf(response.headers), text);
      return { status: response.status, headers: response.headers, text, body: parsed(text) };
    },
    close: () => database.close(),
  };
}

function parsed(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}

export function apnsToken(n: number): string {
  return n.toString(16).padStart(64, '0');
}
