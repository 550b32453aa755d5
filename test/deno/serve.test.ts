import assert from 'node:assert/strict';
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { connect, createServer } from 'node:net';
import { after, before, describe, test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { insertApiKey } from '../../db/api-keys.ts';
import { notificationWorkflowId } from '../../domain/ids.ts';
import { appScopes } from '../../domain/scopes.ts';
import { createTestDatabase, type TestDatabase } from '../support/database.ts';
import { connectTestTemporal, type TestTemporal } from '../support/temporal.ts';
import { until } from '../support/until.ts';
import { parseStrictly } from '../telemetry/strict-parser.ts';

const root = fileURLToPath(new URL('../../', import.meta.url));
const permissions = ['--allow-net', '--allow-env', '--allow-read', '--allow-sys'];

/** Both entries, each a process of its own, against PostgreSQL and Temporal. */
const entries = {
  node: { command: 'node_modules/.bin/node', args: () => ['api/serve.node.ts'] },
  deno: {
    command: 'node_modules/.bin/deno',
    args: (port: number) => ['serve', ...permissions, '--host', '127.0.0.1', '--port', `${port}`, 'api/serve.deno.ts'],
  },
};

for (const [runtime, { command, args }] of Object.entries(entries)) {
  describe(`the API served by ${runtime}`, () => {
    let database: TestDatabase;
    let temporal: TestTemporal;
    let child: ChildProcess;
    let port: number;
    let metricsPort: number;
    let key: string;
    let ask: (method: string, path: string, body?: object) => Promise<Response>;

    before(async () => {
      database = await createTestDatabase();
      temporal = await connectTestTemporal();
      key = await insertApiKey(database.db, { appId: 1, name: 'test', scopes: appScopes });
      port = await freePort();
      metricsPort = await freePort();
      child = spawn(command, args(port), {
        cwd: root,
        stdio: ['ignore', 'ignore', 'inherit'],
        env: {
          ...process.env,
          DATABASE_URL: database.url,
          TEMPORAL_ADDRESS: temporal.address,
          CARILLON_TASK_QUEUE_PREFIX: temporal.taskQueuePrefix,
          CARILLON_TEMPORAL_DEADLINE_MS: '5000',
          CARILLON_IMPORTS_PER_APP: '1',
          LOG_LEVEL: 'error',
          HOST: '127.0.0.1',
          PORT: String(port),
          CARILLON_METRICS_PORT: String(metricsPort),
        },
      });
      ask = (method, path, body) =>
        fetch(`http://127.0.0.1:${port}${path}`, {
          method,
          headers: { authorization: `Bearer ${key}`, ...(body && { 'content-type': 'application/json' }) },
          ...(body && { body: JSON.stringify(body) }),
          signal: AbortSignal.timeout(20_000),
        });
      await until(
        () =>
          ask('GET', '/healthz').then(
            ({ ok }) => ok,
            () => false,
          ),
        'the API comes up',
      );
    });

    after(async () => {
      child.kill('SIGKILL');
      await temporal.close();
      await database.close();
    });

    test('it ends at its start, with the reason, where the password or the database is wrong', async () => {
      for (const [change, reason] of [
        [(url: URL) => (url.password = 'wrong'), /refuses the user or the password of DATABASE_URL \(28P01\)/],
        [(url: URL) => (url.pathname = '/nowhere'), /database "nowhere" does not exist \(3D000\)/],
      ] as const) {
        const url = new URL(database.url);
        change(url);
        const start = spawn(command, args(await freePort()), {
          cwd: root,
          stdio: ['ignore', 'ignore', 'pipe'],
          env: { ...process.env, DATABASE_URL: url.href, PORT: String(await freePort()) },
        });
        let text = '';
        start.stderr.setEncoding('utf8').on('data', (part) => {
          text += part;
        });
        const [status] = await once(start, 'close');
        assert.equal(status, 1);
        assert.match(text, /^The API cannot start: /m);
        assert.match(text, reason);
      }
    });

    test('it is ready and reaches both', async () => {
      const answer = await ask('GET', '/readyz');
      const { status, database, temporal, migrations } = await answer.json();
      assert.deepEqual([status, database, temporal], ['ready', 'reachable', 'reachable']);
      assert.equal(migrations.status, 'current');
    });

    test('its metrics have a port of their own', async () => {
      const accept = 'application/openmetrics-text';
      const answer = await fetch(`http://127.0.0.1:${metricsPort}/metrics`, { headers: { accept } });
      const families = parseStrictly(await answer.text(), 'openMetrics');
      const samplesOf = (name: string) => families.find((family) => family.name === name)?.samples ?? [];
      assert.equal(samplesOf('carillon_build_info')[0]?.labels.role, 'api');
      const ready = samplesOf('carillon_http_requests').find(({ labels }) => labels.route === '/readyz');
      assert.ok(ready!.value > 0);
      const lag = samplesOf('nodejs_eventloop_lag_p99_seconds')[0]?.value;
      assert.ok(lag !== undefined && lag < 60);
      assert.equal((await fetch(`http://127.0.0.1:${port}/metrics`)).status, 404, 'not by the port of callers');
    });

    test('a launch starts the workflow', async () => {
      const answer = await ask('POST', '/v1/notifications', {
        message: { title: 'Hello' },
        audience: {},
        launch: true,
      });
      const { id, state } = (await answer.json()) as { id: string; state: string };
      assert.deepEqual([answer.status, state], [201, 'sending']);
      const handle = temporal.client.workflow.getHandle(notificationWorkflowId(id));
      assert.equal((await handle.describe()).status.name, 'RUNNING');
      await handle.terminate();
    });

    test('a launch needs no body: 202, and 409 after a cancel', async () => {
      const { id } = (await (
        await ask('POST', '/v1/notifications', { message: { title: 'x' }, audience: {} })
      ).json()) as {
        id: string;
      };
      assert.equal((await ask('POST', `/v1/notifications/${id}/launch`)).status, 202);
      assert.equal((await ask('POST', `/v1/notifications/${id}/cancel`)).status, 202);
      assert.equal((await ask('POST', `/v1/notifications/${id}/launch`)).status, 409);
      await temporal.client.workflow.getHandle(notificationWorkflowId(id)).terminate();
    });

    test('a malformed Host header is the fault of the caller', async () => {
      const answer = await new Promise<string>((resolve, reject) => {
        let text = '';
        const socket = connect(port, '127.0.0.1', () => socket.end('GET /healthz HTTP/1.1\r\nHost: a b\r\n\r\n'));
        socket.on('data', (part) => {
          text += part;
          socket.destroy();
        });
        socket.on('error', reject).on('close', () => resolve(text));
      });
      assert.match(answer, /^HTTP\/1\.1 400 /);
    });

    test('what was done is recorded with the address that it came from', async () => {
      const answer = await ask('POST', '/v1/notifications', { message: { title: 'x' }, audience: {} });
      const { id } = (await answer.json()) as { id: string };
      const sql = 'select actor_kind, address, request_id from audit_entries where target_id = $1';
      const { rows } = await database.pool.query(sql, [id]);
      const request_id = answer.headers.get('x-request-id');
      assert.deepEqual(rows, [{ actor_kind: 'key', address: '127.0.0.1', request_id }]);
    });

    test('an import whose caller has gone makes room for the next', async () => {
      const socket = connect(port, '127.0.0.1');
      const fields = `Authorization: Bearer ${key}\r\nContent-Type: application/x-ndjson\r\nTransfer-Encoding: chunked`;
      socket.write(`POST /v1/devices/import HTTP/1.1\r\nHost: localhost\r\n${fields}\r\n\r\n1\r\n\n\r\n`);
      const [head] = await once(socket, 'data');
      assert.match(String(head), /^HTTP\/1\.1 200 /);
      const statusOfImport = async () => {
        const headers = { authorization: `Bearer ${key}`, 'content-type': 'application/x-ndjson' };
        const url = `http://127.0.0.1:${port}/v1/devices/import`;
        const answer = await fetch(url, { method: 'POST', headers, body: '\n', signal: AbortSignal.timeout(20_000) });
        await answer.text();
        return answer.status;
      };
      assert.equal(await statusOfImport(), 429, 'the only place is taken');
      socket.destroy();
      await until(async () => (await statusOfImport()) === 200, 'the place is free again');
    });

    test('SIGTERM ends open streams and the process', async () => {
      const created = await ask('POST', '/v1/notifications', { message: { title: 'Hello' }, audience: {} });
      const { id } = (await created.json()) as { id: string };
      const stream = (await ask('GET', `/v1/notifications/${id}/progress`)).text();
      const gone = new Promise((resolve) => child.once('exit', resolve));
      child.kill('SIGTERM');
      assert.match(await stream, /^event: progress/);
      await gone;
    });
  });
}

function freePort(): Promise<number> {
  return new Promise((resolve, reject) => {
    const server = createServer();
    server.once('error', reject);
    server.listen(0, '127.0.0.1', () => {
      const { port } = server.address() as { port: number };
      server.close(() => resolve(port));
    });
  });
}
