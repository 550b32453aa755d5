import assert from 'node:assert/strict';
import { Ajv2020 } from 'ajv/dist/2020.js';
import addFormats from 'ajv-formats';

type Schema = Record<string, unknown>;
interface Content {
  content?: Record<string, { schema: Schema }>;
}
interface Operation {
  requestBody?: Content & { required?: boolean };
  responses: Record<string, Content & { headers?: Record<string, { required?: boolean; schema: Schema }> }>;
}

/** An OpenAPI 3.1 document, whose schemas are JSON Schema 2020-12, held against what really goes over the wire. */
export interface Document {
  /**
   * Status, media type and headers; the body too where it is JSON, which leaves the answer as it was.
   * @throws {AssertionError} where the document says something else
   */
  checkAnswer(method: string, path: string, answer: Response): Promise<void>;
  /** Each line of an answer of JSON lines, the data of each event of an event stream. */
  checkStream(method: string, path: string, mediaType: string, text: string): void;
  /** The body of a request that was taken. */
  checkTaken(method: string, path: string, mediaType: string, text: string): void;
}

const jsonMediaType = /^application\/(problem\+)?json$/;

export function createDocument(json: { paths: Record<string, Record<string, Operation>> }): Document {
  const ajv = new Ajv2020({ strict: false, allErrors: true });
  addFormats.default(ajv);
  ajv.addSchema(json, 'document');
  const patterns = Object.keys(json.paths)
    // A path without parameters is meant before one with.
    .sort((a, b) => a.split('{').length - b.split('{').length)
    .map((path) => ({ path, pattern: new RegExp(`^${path.replaceAll(/\{\w+\}/g, '[^/]+')}$`) }));

  function find(method: string, url: string): { operation: Operation; pointer: string; name: string } | undefined {
    const asked = url.split('?')[0]!;
    const verb = (method === 'HEAD' ? 'GET' : method).toLowerCase();
    const found = patterns.find(({ path, pattern }) => pattern.test(asked) && json.paths[path]![verb]);
    if (!found) return undefined;
    const operation = json.paths[found.path]![verb]!;
    return { operation, pointer: pointerOf('paths', found.path, verb), name: `${method} ${found.path}` };
  }

  function check(value: unknown, pointer: string, what: string): void {
    const validate = ajv.getSchema(`document#${pointer}`);
    assert.ok(validate, `${what}: no schema at ${pointer}`);
    assert.ok(validate(value), `${what} is not as the document says: ${ajv.errorsText(validate.errors)}`);
  }

  return {
    async checkAnswer(method, url, answer) {
      const mediaType = mediaTypeOf(answer.headers);
      const own = json.paths[url.split('?')[0]!];
      // A path without parameters may refuse what the pattern that it also matches would take.
      const found = answer.status === 405 && own && !own[method.toLowerCase()] ? undefined : find(method, url);
      if (!found) {
        // The pages for people, and whatever the document does not know.
        if (answer.status < 400 || answer.status === 401) return;
        assert.ok([404, 405, 400, 413, 415, 422].includes(answer.status), `${method} ${url}: ${answer.status}`);
        if (method !== 'HEAD') check(await answer.clone().json(), pointerOf('components', 'schemas', 'Problem'), url);
        return;
      }
      const { operation, pointer, name } = found;
      const declared = operation.responses[answer.status];
      const what = `the ${answer.status} of ${name}`;
      assert.ok(declared, `${what} is not declared`);
      for (const [header, { required, schema }] of Object.entries(declared.headers ?? {})) {
        const value = answer.headers.get(header);
        assert.ok(value !== null || !required, `${what} has no ${header}`);
        if (value !== null && schema.type === 'string')
          check(value, `${pointer}${pointerOf('responses', answer.status, 'headers', header, 'schema')}`, what);
      }
      if (declared.content === undefined) {
        assert.equal(answer.body, null, `${what} has a body`);
        return;
      }
      assert.ok(declared.content[mediaType], `${what} has the undeclared type ${mediaType}`);
      if (method === 'HEAD' || !jsonMediaType.test(mediaType)) return;
      const place = pointerOf('responses', answer.status, 'content', mediaType, 'schema');
      check(await answer.clone().json(), pointer + place, what);
    },

    checkStream(method, url, mediaType, text) {
      const place = {
        'application/x-ndjson': { start: '', schema: ['contentSchema'] },
        'text/event-stream': { start: 'data: ', schema: ['properties', 'data', 'contentSchema'] },
      }[mediaType];
      const found = find(method, url);
      if (!place || !found) return;
      const pointer = found.pointer + pointerOf('responses', 200, 'content', mediaType, 'schema', ...place.schema);
      for (const line of text.split('\n').filter((line) => line !== '' && line.startsWith(place.start))) {
        check(JSON.parse(line.slice(place.start.length)), pointer, `a line of ${found.name}`);
      }
    },

    checkTaken(method, url, mediaType, text) {
      const found = find(method, url);
      assert.ok(found, `${method} ${url} was taken and is not declared`);
      const { requestBody } = found.operation;
      if (text === '' && mediaType !== 'application/x-ndjson')
        assert.ok(!requestBody?.required, `${found.name} was taken without its body`);
      else if (requestBody && mediaType === 'application/json') {
        const place = pointerOf('requestBody', 'content', mediaType, 'schema');
        check(JSON.parse(text), found.pointer + place, `the body of ${found.name}, which was taken,`);
      }
    },
  };
}

export function mediaTypeOf(headers: Headers): string {
  return (headers.get('content-type') ?? '').split(';')[0]!;
}

/** RFC 6901, in a fragment. */
function pointerOf(...parts: (string | number)[]): string {
  return parts
    .map((part) => `/${encodeURIComponent(String(part).replaceAll('~', '~0').replaceAll('/', '~1'))}`)
    .join('');
}
