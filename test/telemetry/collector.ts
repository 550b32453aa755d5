/** A collector of traces: takes OTLP over HTTP and reads as much of its protobuf as tests need. */
import { once } from 'node:events';
import { createServer, type IncomingHttpHeaders } from 'node:http';
import type { AddressInfo } from 'node:net';

export interface CollectedSpan {
  traceId: string;
  spanId: string;
  parentId: string;
  name: string;
  attributes: Record<string, unknown>;
  links: string[];
  service: unknown;
}

export interface Collector {
  url: string;
  spans: CollectedSpan[];
  headers: IncomingHttpHeaders[];
  /** All that came, as bytes read as text: to look for what must not be in it. */
  text(): string;
  /** Of the answers from now on; default 200. */
  status: number;
  close(): Promise<void>;
}

export async function startCollector(): Promise<Collector> {
  const bodies: Buffer[] = [];
  const server = createServer((request, response) => {
    const parts: Buffer[] = [];
    request.on('data', (part) => parts.push(part));
    request.on('end', () => {
      const body = Buffer.concat(parts);
      collector.headers.push(request.headers);
      if (collector.status === 200) {
        bodies.push(body);
        collector.spans.push(...readSpans(body));
      }
      response.writeHead(collector.status).end();
    });
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  const collector: Collector = {
    url: `http://127.0.0.1:${(server.address() as AddressInfo).port}`,
    ...{ spans: [], headers: [], status: 200 },
    text: () => Buffer.concat(bodies).toString('latin1'),
    async close() {
      server.closeAllConnections();
      server.close();
      await once(server, 'close');
    },
  };
  return collector;
}

/** Numbers of fields: https://github.com/open-telemetry/opentelemetry-proto/blob/main/opentelemetry/proto/trace/v1/trace.proto */
function readSpans(request: Buffer): CollectedSpan[] {
  return all(request, 1).flatMap((resourceSpans) => {
    const resource = attributesOf(all(one(resourceSpans, 1), 1));
    return all(resourceSpans, 2).flatMap((scopeSpans) =>
      all(scopeSpans, 2).map((span) => ({
        traceId: one(span, 1).toString('hex'),
        spanId: one(span, 2).toString('hex'),
        parentId: one(span, 4).toString('hex'),
        name: one(span, 5).toString(),
        attributes: attributesOf(all(span, 9)),
        links: all(span, 13).map((link) => one(link, 1).toString('hex')),
        service: resource['service.name'],
      })),
    );
  });
}

function attributesOf(pairs: Buffer[]): Record<string, unknown> {
  return Object.fromEntries(
    pairs.map((pair) => {
      const [field] = fieldsOf(one(pair, 2));
      return [one(pair, 1).toString(), field?.bytes?.toString() ?? Number(field?.number)];
    }),
  );
}

interface Field {
  field: number;
  bytes?: Buffer;
  number?: bigint;
}

/** https://protobuf.dev/programming-guides/encoding/ */
function fieldsOf(message: Buffer): Field[] {
  const fields: Field[] = [];
  let at = 0;
  const varint = () => {
    let value = 0n;
    for (let shift = 0n; ; shift += 7n) {
      const byte = message[at++]!;
      value |= BigInt(byte & 127) << shift;
      if (byte < 128) return value;
    }
  };
  while (at < message.length) {
    const key = Number(varint());
    const field = key >> 3;
    switch (key & 7) {
      case 0:
        fields.push({ field, number: varint() });
        break;
      case 2: {
        const length = Number(varint());
        fields.push({ field, bytes: message.subarray(at, at + length) });
        at += length;
        break;
      }
      case 1:
        fields.push({ field, number: message.readBigUInt64LE(at) });
        at += 8;
        break;
      default:
        fields.push({ field, number: BigInt(message.readUInt32LE(at)) });
        at += 4;
    }
  }
  return fields;
}

function all(message: Buffer, field: number): Buffer[] {
  return fieldsOf(message).flatMap((found) => (found.field === field && found.bytes ? [found.bytes] : []));
}

function one(message: Buffer, field: number): Buffer {
  return all(message, field)[0] ?? Buffer.alloc(0);
}
