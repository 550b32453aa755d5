/**
 * `npm run build:workflows -- [file]`: bundles the workflows ahead of time, so that a worker needs neither webpack's seconds nor
 * its memory at each start. `CARILLON_WORKFLOW_BUNDLE` then names the file. Only for images and the like: a bundle beside
 * sources that change would be run long after they did.
 */
import { mkdirSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { bundleWorkflowCode } from '@temporalio/worker';
import { readCommandLine } from '../domain/command-line.ts';

const usage = `npm run build:workflows -- [file]

  Default: dist/workflow-bundle.js`;
const { positionals } = readCommandLine(usage, {}, 1);
const file = path.resolve(positionals[0] ?? 'dist/workflow-bundle.js');
const pathOf = (name: string) => fileURLToPath(new URL(name, import.meta.url));
const { code } = await bundleWorkflowCode({
  workflowsPath: pathOf('./index.ts'),
  workflowInterceptorModules: [pathOf('./trace-header.ts')],
});
mkdirSync(path.dirname(file), { recursive: true });
writeFileSync(file, code);
console.log(`${file}: ${(code.length / 1e6).toFixed(2)} MB`);
