import { createServer, type IncomingHttpHeaders, type RequestListener, type Server } from 'node:http';
import { createServer as createTlsServer } from 'node:https';
import type { AddressInfo } from 'node:net';
import type { JsonObject } from '../../domain/json.ts';

export interface ReceivedWebhook {
  headers: IncomingHttpHeaders;
  /** As it came, to be verified. */
  text: string;
  body: { type: string; timestamp: string; data: JsonObject };
}

interface Answer {
  status: number;
  headers?: Record<string, string>;
  body?: string;
}

/** A receiver on this machine alone. */
export interface WebhookReceiver {
  url: string;
  port: number;
  /** In order of arrival. */
  received: ReceivedWebhook[];
  /** May be changed at any time; default 204. */
  answer: (request: ReceivedWebhook) => Answer | Promise<Answer>;
  close(): Promise<void>;
}

interface ReceiverOptions {
  address?: string;
  port?: number;
  tls?: { key: string; cert: string };
}

export async function startReceiver(options: ReceiverOptions = {}): Promise<WebhookReceiver> {
  const received: ReceivedWebhook[] = [];
  const { server, url, port, close } = await listen(async (request, response) => {
    const chunks: Buffer[] = [];
    for await (const chunk of request) chunks.push(chunk);
    const text = Buffer.concat(chunks).toString();
    const webhook = { headers: request.headers, text, body: JSON.parse(text) };
    received.push(webhook);
    const { status, headers = {}, body = '' } = await receiver.answer(webhook);
    response.writeHead(status, headers).end(body);
  }, options);
  const receiver: WebhookReceiver = { url, port, received, answer: () => ({ status: 204 }), close };
  server.unref();
  return receiver;
}

/** The same for whoever answers as no receiver should. */
export async function listen(
  onRequest: RequestListener,
  { address = '127.0.0.1', port = 0, tls }: ReceiverOptions = {},
): Promise<{ server: Server; url: string; port: number; close(): Promise<void> }> {
  const server = tls ? createTlsServer(tls, onRequest) : createServer(onRequest);
  await new Promise<void>((resolve) => server.listen(port, address, resolve));
  const bound = (server.address() as AddressInfo).port;
  return {
    server,
    port: bound,
    url: `${tls ? 'https' : 'http'}://${address}:${bound}/hook`,
    close: () =>
      new Promise((resolve) => {
        server.close(() => resolve());
        server.closeAllConnections();
      }),
  };
}
