import { z } from '@hono/zod-openapi';
import { beginImport } from '../../db/device-import.ts';
import type { TakePlace } from '../access/places.ts';
import { whileValid } from '../access/while-valid.ts';
import type { ApiDependencies } from '../dependencies.ts';
import { toByteStream } from '../http/byte-stream.ts';
import { ndjsonBody, ndjsonMediaType } from '../http/ndjson.ts';
import { problems } from '../http/problem-schema.ts';
import { createRouter, defineRoute } from '../http/router.ts';
import type { DeviceLimit } from './device-limit.ts';
import { runImport } from './import-run.ts';
import { importRowSchema } from './schemas.ts';

const failureSchema = z
  .object({
    line: z.int().openapi({ description: 'Counted from 1, blank lines included.' }),
    external_id: z.string().optional(),
    code: z.string(),
    field: z.string(),
    message: z.string(),
  })
  .openapi('ImportFailure');

const warningSchema = z
  .object({
    warning: z.object({ line: z.int(), external_id: z.string(), field: z.string(), message: z.string() }),
  })
  .openapi('ImportWarning', { description: 'The row is stored, without this field.' });

const summarySchema = z
  .object({
    imported: z.int().openapi({ description: 'Rows taken.' }),
    superseded: z.int().openapi({
      description:
        'How many of them a later row with the same external id replaced; properties that it left out are kept.',
    }),
    failed: z.int(),
    warnings: z.int().openapi({ description: 'Fields left out of rows that are stored.' }),
    lines: z.int().openapi({ description: 'Lines read, blank ones not counted.' }),
    complete: z.boolean().openapi({ description: 'False: the import ended early, `code` and `message` say why.' }),
    code: z.string().optional(),
    message: z.string().optional(),
  })
  .openapi('ImportSummary');

const progressSchema = z
  .object({
    progress: z.object({
      imported: z.int(),
      superseded: z.int(),
      failed: z.int(),
      warnings: z.int(),
      lines: z.int(),
    }),
  })
  .openapi('ImportProgress');

const importRoute = defineRoute({
  method: 'post',
  path: '/v1/devices/import',
  scope: 'devices:write',
  tags: ['Devices'],
  summary: 'Register any number of devices',
  description:
    'One JSON object a line (NDJSON), of any length: the fields of a registration and external_id. The answer is NDJSON too and comes while the import runs: one line for each row that failed or lost a field, every ten seconds one that says how far it is (clients and proxies give up on a silent connection), at the end one summary. Later rows win over earlier ones. A row is a copy of what an app registered: with the token that the device has already it neither moves registered_at nor brings a retired device back, unless its registered_at is newer. Content-Encoding: gzip is understood. Read the answer while sending.',
  request: {
    query: z.strictObject({
      register: z.enum(['true', 'false']).optional().openapi({
        description:
          'true: rows without registered_at count as registrations by the app at this moment, so that retired devices live again.',
      }),
    }),
    body: { required: true, content: { 'application/x-ndjson': { schema: importRowSchema } } },
  },
  responses: {
    200: {
      description: 'Failures, warnings and progress, then the summary.',
      content: {
        'application/x-ndjson': { schema: z.union([failureSchema, warningSchema, progressSchema, summarySchema]) },
      },
    },
    ...problems(415, 422),
  },
});

export function deviceImport(deps: ApiDependencies, takePlace: TakePlace, limit: DeviceLimit) {
  return createRouter().openapi(importRoute, async (c) => {
    const lines = whileValid(ndjsonBody(c.req.raw), c.var.isStillValid);
    const options = { importId: await beginImport(deps.db), isOwn: c.req.valid('query').register === 'true' };
    const answers = runImport({ ...deps, limit }, c.var, lines, options);
    return c.body(toByteStream(answers, takePlace(c.var.app.id)), 200, { 'Content-Type': ndjsonMediaType }) as never;
  });
}
