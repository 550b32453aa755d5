import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { existsSync, mkdtempSync } from 'node:fs';
import { createServer, type IncomingMessage, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import os from 'node:os';
import path from 'node:path';
import { text } from 'node:stream/consumers';
import { findFreePort } from '../../local/ports.ts';
import { until } from './until.ts';

/** A store that speaks S3, with one bucket: `books`. */
export interface TestStore {
  endpoint: string;
  close(): Promise<void>;
}

/** What the store in this process does with a request. */
export type StoreFault = 'refuse' | 'die' | 'hang' | undefined;

export interface ScriptedStore extends TestStore {
  /** In the order in which they were written; a repeat moves one to the end. */
  objects: Map<string, Buffer>;
  /** Parts of uploads that were neither completed nor aborted, by upload. */
  parts: Map<string, { key: string; parts: Map<number, Buffer> }>;
  /** Default: none. `part`: of an upload in parts, from 1. */
  faultOf: (request: { method: string; key: string; part: number | undefined }) => StoreFault;
}

/** The few operations of S3 that uploads need, with faults on demand. */
export async function startScriptedStore(): Promise<ScriptedStore> {
  const objects: ScriptedStore['objects'] = new Map();
  const parts: ScriptedStore['parts'] = new Map();
  const server = createServer((request, response) => {
    answer(request, response).catch(() => response.destroy());
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  const store: ScriptedStore = {
    ...{ objects, parts, faultOf: () => undefined },
    endpoint: `http://127.0.0.1:${(server.address() as AddressInfo).port}`,
    async close() {
      server.closeAllConnections();
      await new Promise((resolve) => server.close(resolve));
    },
  };
  let uploads = 0;

  async function answer(request: IncomingMessage, response: ServerResponse): Promise<void> {
    const { pathname, searchParams: query } = new URL(request.url!, store.endpoint);
    const [, bucket, ...rest] = decodeURIComponent(pathname).split('/');
    const key = rest.join('/');
    const id = query.get('uploadId');
    const part = query.has('partNumber') ? Number(query.get('partNumber')) : undefined;
    const xml = (status: number, body: string) => {
      response.writeHead(status, { 'content-type': 'application/xml' });
      response.end(body);
    };
    assert.ok(request.headers.authorization, 'every request is signed');
    if (bucket !== 'books')
      return xml(404, '<Error><Code>NoSuchBucket</Code><Message>There is none.</Message></Error>');
    const fault = store.faultOf({ method: request.method!, key, part });
    if (fault === 'hang') return;
    if (fault === 'die') {
      // In the middle of what it is sent.
      await new Promise((resolve) => request.once('data', resolve));
      request.socket.destroy();
      return;
    }
    const body = await blocksOf(request);
    if (fault === 'refuse') return xml(403, '<Error><Code>AccessDenied</Code><Message>No.</Message></Error>');
    if (request.method === 'PUT' && id !== null) {
      parts.get(id)!.parts.set(part!, body);
      response.writeHead(200, { etag: `"${part}"` }).end();
    } else if (request.method === 'PUT') {
      write(key, body);
      response.writeHead(200, { etag: '"whole"' }).end();
    } else if (request.method === 'POST' && id === null) {
      const made = `upload-${++uploads}`;
      parts.set(made, { key, parts: new Map() });
      xml(200, `<InitiateMultipartUploadResult><UploadId>${made}</UploadId></InitiateMultipartUploadResult>`);
    } else if (request.method === 'POST') {
      const upload = parts.get(id!)!;
      write(key, Buffer.concat([...upload.parts].sort(([a], [b]) => a - b).map(([, block]) => block)));
      parts.delete(id!);
      xml(200, '<CompleteMultipartUploadResult><ETag>"whole"</ETag></CompleteMultipartUploadResult>');
    } else if (request.method === 'DELETE') {
      parts.delete(id!);
      response.writeHead(204).end();
    } else {
      const open = [...parts].filter(([, upload]) => upload.key.startsWith(query.get('prefix') ?? ''));
      const items = open.map(
        ([made, upload]) => `<Upload><Key>${upload.key}</Key><UploadId>${made}</UploadId></Upload>`,
      );
      xml(200, `<ListMultipartUploadsResult>${items.join('')}</ListMultipartUploadsResult>`);
    }
  }

  function write(key: string, body: Buffer): void {
    objects.delete(key);
    objects.set(key, body);
  }

  return store;
}

async function blocksOf(request: IncomingMessage): Promise<Buffer> {
  const blocks: Buffer[] = [];
  for await (const block of request) blocks.push(block);
  return Buffer.concat(blocks);
}

const program = [...(process.env.PATH ?? '').split(':'), path.join(os.homedir(), 'go', 'bin')]
  .map((folder) => path.join(folder, 'versitygw'))
  .find((file) => existsSync(file));

/** Why the tests with a store that nobody of this project wrote are skipped; false: they are not. */
export const noForeignStore =
  program === undefined && 'versitygw is not installed (go install github.com/versity/versitygw/cmd/versitygw@v1.8.0)';

/** An S3 gateway over a folder, with the credentials of the environment. */
export async function startForeignStore(): Promise<TestStore> {
  const port = await findFreePort();
  const folder = mkdtempSync(path.join(os.tmpdir(), 'carillon-store-'));
  const { AWS_ACCESS_KEY_ID: key, AWS_SECRET_ACCESS_KEY: secret } = process.env;
  const child = spawn(program!, ['--port', `127.0.0.1:${port}`, '--quiet', 'posix', folder], {
    env: { ...process.env, ROOT_ACCESS_KEY: key, ROOT_SECRET_KEY: secret },
    stdio: ['ignore', 'ignore', 'pipe'],
  });
  const said = text(child.stderr);
  const ended = new Promise((resolve) => child.once('exit', resolve));
  const endpoint = `http://127.0.0.1:${port}`;
  await until(async () => {
    assert.equal(child.exitCode, null, child.exitCode === null ? '' : await said);
    return await fetch(endpoint).then(
      () => true,
      () => false,
    );
  });
  return {
    endpoint,
    async close() {
      child.kill();
      await ended;
    },
  };
}
