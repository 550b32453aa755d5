/**
 * Runs before `npm run demo`, `npm start` and `npm test`: installs the dependencies when they are missing or differ from the lock
 * file. Plain JavaScript without imports of packages, because it runs on whatever Node the machine has; the programs after it run
 * on the Node that it installed.
 */
import { spawnSync } from 'node:child_process';
import { existsSync, readFileSync } from 'node:fs';
import path from 'node:path';
import { fileURLToPath } from 'node:url';

const root = path.resolve(path.dirname(fileURLToPath(import.meta.url)), '..');
const minimumNode = 20;

if (Number.parseInt(process.versions.node, 10) < minimumNode) {
  fail(`Carillon needs Node ${minimumNode} or newer to install itself; this is Node ${process.versions.node}.`);
}

const reason = findReasonToInstall();
if (reason) {
  console.error(`${reason}: running npm ci …`);
  const startedAt = Date.now();
  const { status, error } = runNpm(['ci', '--include=dev', '--no-audit', '--no-fund', '--loglevel=error']);
  if (status !== 0) fail(`npm ci failed${error ? `: ${error.message}` : ''}. Its output above says why.`);
  const remaining = findReasonToInstall();
  if (remaining) fail(`npm ci ended well, yet: ${remaining}. Remove node_modules and try again.`);
  console.error(`Installed in ${Math.round((Date.now() - startedAt) / 1000)} s.`);
}

/** Compares npm's own record in node_modules with the lock file; file times tell nothing after a checkout or a copy. */
function findReasonToInstall() {
  const wanted = readLock(path.join(root, 'package-lock.json'));
  const installed = readLock(path.join(root, 'node_modules', '.package-lock.json'));
  if (!wanted) fail('package-lock.json is missing.');
  if (!installed) return 'The dependencies are not installed yet';
  for (const [name, { version, optional, devOptional, peer }] of Object.entries(wanted)) {
    if (name === '') continue;
    const present = installed[name];
    if (!present && !optional && !devOptional && !peer) return `${name} is missing`;
    if (present && present.version !== version) return `${name} is ${present.version}, not ${version}`;
  }
  const node = path.join(root, 'node_modules', '.bin', process.platform === 'win32' ? 'node.cmd' : 'node');
  return existsSync(node) ? undefined : 'The Node that Carillon runs on is not installed yet';
}

function readLock(file) {
  return existsSync(file) ? JSON.parse(readFileSync(file, 'utf8')).packages : undefined;
}

/** With the Node that started npm, not the one in node_modules, which `npm ci` removes while it runs. */
function runNpm(args) {
  const { npm_execpath: npm, npm_node_execpath: node } = process.env;
  const options = { cwd: root, stdio: ['ignore', 2, 2] };
  if (npm && node) return spawnSync(node, [npm, ...args], options);
  return spawnSync('npm', args, { ...options, shell: process.platform === 'win32' });
}

function fail(message) {
  console.error(message);
  process.exit(1);
}
