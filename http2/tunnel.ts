/** Connections through an HTTP proxy: CONNECT (RFC 9110 §9.3.6), then TLS to the provider inside the tunnel. */
import { request as requestHttp } from 'node:http';
import { request as requestHttps } from 'node:https';
import { isIP, type Socket } from 'node:net';
import { connect as connectTls, type ConnectionOptions as TlsOptions } from 'node:tls';
import type { buildConnector } from 'undici';
import type { HttpProxy } from '../domain/proxy.ts';

/** A socket that is still being opened. */
export interface Opening {
  /** Resolves when the socket begins its TLS handshake. */
  readonly socket: Promise<Socket>;
  /** Gives up. A repeated or late call is harmless. */
  cancel(): void;
}

/** @param tls the provider's options; their `ca` is trusted for the proxy's own certificate as well */
export function openTunnel(proxy: HttpProxy, target: { host: string; port: number }, tls: TlsOptions): Opening {
  const { host, port } = target;
  const authority = isIP(host) === 6 ? `[${host}]:${port}` : `${host}:${port}`;
  const connect = (proxy.isTls ? requestHttps : requestHttp)({
    host: proxy.host,
    port: proxy.port,
    method: 'CONNECT',
    path: authority,
    agent: false,
    headers: {
      host: authority,
      ...(proxy.authorization === undefined ? {} : { 'proxy-authorization': proxy.authorization }),
    },
    ...(proxy.isTls && tls.ca !== undefined ? { ca: tls.ca } : {}),
  });
  const socket = new Promise<Socket>((resolve, reject) => {
    connect.once('connect', ({ statusCode = 0, statusMessage = '' }, raw: Socket, head) => {
      if (statusCode < 200 || statusCode > 299) {
        raw.destroy();
        reject(proxyError(proxy, `it answered CONNECT ${authority} with ${statusCode} ${statusMessage}`, statusCode));
        return;
      }
      if (head.length > 0) raw.unshift(head);
      raw.setNoDelay(true);
      const name = isIP(host) === 0 ? { servername: host } : {};
      const secure = connectTls({ host, ...name, ...tls, socket: raw });
      raw.on('error', (error) => secure.destroy(error));
      resolve(secure);
    });
    connect.on('error', (error: NodeJS.ErrnoException) =>
      reject(proxyError(proxy, error.message, error.code ?? 'FAILED', error)),
    );
  });
  connect.end();
  return { socket, cancel: () => connect.destroy() };
}

/** For undici. */
export function connectThrough(proxy: HttpProxy, tls: TlsOptions, timeoutMs: number): buildConnector.connector {
  return ({ hostname, port }, callback) => {
    const host = hostname.replace(/^\[(.*)\]$/, '$1');
    const opening = openTunnel(proxy, { host, port: port === '' ? 443 : Number(port) }, tls);
    let secure: Socket | undefined;
    const timer = setTimeout(() => {
      opening.cancel();
      secure?.destroy(proxyError(proxy, `no connection to ${host} within ${timeoutMs} ms`, 'ETIMEDOUT'));
    }, timeoutMs);
    const fail = (error: Error) => {
      clearTimeout(timer);
      callback(error, null);
    };
    opening.socket.then((socket) => {
      secure = socket;
      socket.once('error', fail);
      socket.once('secureConnect', () => {
        clearTimeout(timer);
        socket.off('error', fail);
        callback(null, socket);
      });
    }, fail);
  };
}

/** @param detail part of `code`, so that reasons and logs tell the proxy's troubles from the provider's */
function proxyError({ host, port }: HttpProxy, message: string, detail: string | number, cause?: Error): Error {
  const error = new Error(`proxy ${host}:${port}: ${message}`, cause === undefined ? undefined : { cause });
  return Object.assign(error, { code: `PROXY_${detail}` });
}
