import assert from 'node:assert/strict';
import { once } from 'node:events';
import { connect, createServer } from 'node:net';
import { describe, test } from 'node:test';
import { serveMetrics } from '../../telemetry/serve.node.ts';
import { until } from '../support/until.ts';

function served(answer: (request: Request) => Promise<Response>, port = 0) {
  const logged: { level: string; fields: Record<string, unknown> }[] = [];
  const note = (level: string) => (fields: object) => void logged.push({ level, fields: { ...fields } });
  const log = { debug: note('debug'), info: note('info'), warn: note('warn'), error: note('error') };
  return { end: serveMetrics({ host: '127.0.0.1', port }, answer, log), logged };
}

async function portOf({ logged }: ReturnType<typeof served>): Promise<number> {
  await until(async () => logged.length > 0, 'the port to be logged');
  return logged[0]!.fields.port as number;
}

describe('the port for metrics', () => {
  test('is chosen and logged, hands on the path and what is accepted, and closes', async () => {
    const server = served(
      async ({ url, headers }) => new Response(`${new URL(url).pathname} ${headers.get('accept')}`),
    );
    const port = await portOf(server);
    const ask = () => fetch(`http://127.0.0.1:${port}/metrics?x=1`, { headers: { accept: 'text/plain' } });
    assert.equal(await (await ask()).text(), '/metrics text/plain');
    server.end();
    await assert.rejects(ask());
  });

  test('that is taken is logged, and nothing else happens', async () => {
    const other = createServer().listen(0, '127.0.0.1');
    await once(other, 'listening');
    const server = served(async () => new Response(''), (other.address() as { port: number }).port);
    await until(async () => server.logged.length > 0, 'an error to be logged');
    assert.equal(server.logged[0]!.level, 'error');
    server.end();
    other.close();
  });

  test('survives an answer that fails and a request that is none', async () => {
    let isFailing = true;
    const server = served(async () => {
      if (isFailing) throw new Error('broken');
      return new Response('well');
    });
    const port = await portOf(server);
    await assert.rejects(fetch(`http://127.0.0.1:${port}/metrics`));
    const socket = connect(port, '127.0.0.1');
    socket.end('GET //:x HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n').resume();
    await once(socket, 'close');
    isFailing = false;
    assert.equal(await (await fetch(`http://127.0.0.1:${port}/metrics`)).text(), 'well');
    server.end();
  });
});
