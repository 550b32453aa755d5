/**
 * Part of `npm run check`: holds `temporal-compose.yml`, the Dockerfile, `.dockerignore` and the settings in README.md against
 * the code, since images cannot be built everywhere and nobody reads tables twice. Every command must exist, every variable
 * must be read by someone, every service of Carillon must find its settings valid, and the connections of all must fit into
 * PostgreSQL.
 */
import { existsSync, readFileSync } from 'node:fs';
import path from 'node:path';
import { parse } from 'yaml';
import { loadWorkerSettings } from '../activities/worker-settings.ts';
import { loadConfig } from '../domain/config.ts';
import type { Environment } from '../domain/settings.ts';
import { projectRoot } from '../local/paths.ts';
import packageJson from '../package.json' with { type: 'json' };

interface Service {
  image?: string;
  build?: string;
  command?: string[];
  environment?: Record<string, string>;
  depends_on?: Record<string, { condition: string }>;
  healthcheck?: { test: string[] };
  configs?: { source: string }[];
  volumes?: string[];
  ports?: string[];
  deploy?: { replicas?: number };
}

interface Compose {
  services: Record<string, Service>;
  configs?: Record<string, unknown>;
  volumes?: Record<string, unknown>;
}

/** What the images of others read, checked against their own sources at the pinned versions. */
const foreignVariables: Record<string, readonly string[]> = {
  postgres: ['POSTGRES_USER', 'POSTGRES_DB', 'POSTGRES_PASSWORD', 'TEMPORAL_POSTGRES_PASSWORD'],
  'temporalio/admin-tools': ['SQL_PLUGIN', 'SQL_HOST', 'SQL_PORT', 'SQL_USER', 'SQL_PASSWORD', 'TEMPORAL_ADDRESS'],
  'temporalio/server': [
    ...['DB', 'DB_PORT', 'POSTGRES_SEEDS', 'POSTGRES_USER', 'POSTGRES_PWD', 'DBNAME', 'VISIBILITY_DBNAME'],
    ...['NUM_HISTORY_SHARDS', 'SQL_MAX_CONNS', 'SQL_MAX_IDLE_CONNS', 'SQL_VIS_MAX_CONNS', 'SQL_VIS_MAX_IDLE_CONNS'],
    ...['BIND_ON_IP', 'DYNAMIC_CONFIG_FILE_PATH', 'LOG_LEVEL', 'PROMETHEUS_ENDPOINT'],
  ],
  'temporalio/ui': ['TEMPORAL_ADDRESS', 'TEMPORAL_CORS_ORIGINS', 'TEMPORAL_UI_PORT'],
};

/** Read by `@temporalio/envconfig`, by the AWS SDK, by Node and by glibc. */
const libraryVariables =
  /^(TEMPORAL_(ADDRESS|NAMESPACE|API_KEY|TLS(_[A-Z_]+)?|GRPC_META_[A-Z_]+)|AWS_(ACCESS_KEY_ID|SECRET_ACCESS_KEY)|NODE_[A-Z_]+|MALLOC_ARENA_MAX)$/;

const temporalServices = 4;
/** Kept by PostgreSQL for its administrator, and for a person with psql. */
const reservedConnections = 10;

const problems: string[] = [];
const ownVariables = recordOwnVariables();
const read = (file: string) => readFileSync(path.join(projectRoot, file), 'utf8');
const text = read('temporal-compose.yml');
const compose = parse(text, { merge: true }) as Compose;
const dockerfile = read('Dockerfile');
const dockerignore = read('.dockerignore').split('\n').filter(Boolean);

for (const [name, service] of Object.entries(compose.services)) {
  checkReferences(name, service);
  if (service.build) checkOwnService(name, service);
  else checkForeignService(name, service);
}
checkSecrets();
checkVersions();
checkConnections();
checkDockerfile();
checkReadme();

for (const problem of problems) console.error(problem);
if (problems.length > 0) process.exit(1);
console.log(
  `temporal-compose.yml, Dockerfile and README.md: ${Object.keys(compose.services).length} services and ${ownVariables.size} settings agree with the code.`,
);

function checkOwnService(name: string, service: Service): void {
  const [program, ...args] = service.command ?? [];
  const file = args.find((argument) => !argument.startsWith('-'));
  if (program !== 'node' || !file) problems.push(`${name}: the command must be node with a file`);
  else checkFileInImage(`${name}: ${file}`, file);
  const script = Object.values(packageJson.scripts).find((text) => text.split(' ').at(-1) === file);
  // `exec` puts the program in the place of npm's shell, which would keep signals for itself.
  if (script && script.replace(/^exec /, '') !== service.command?.join(' '))
    problems.push(`${name}: package.json runs it by "${script}"`);

  const environment: Environment = Object.fromEntries(
    Object.entries(service.environment ?? {}).map(([key, value]) => [key, interpolate(String(value))]),
  );
  try {
    loadWorkerSettings(environment);
  } catch (error) {
    problems.push(`${name}: ${(error as Error).message}`);
  }
  for (const key of Object.keys(environment)) {
    if (!ownVariables.has(key) && !libraryVariables.test(key)) problems.push(`${name}: nobody reads ${key}`);
  }
  if (!environment.TEMPORAL_ADDRESS) problems.push(`${name}: TEMPORAL_ADDRESS is not set`);
}

/** The names that Carillon's configuration asks for when every setting is given, since some belong to others. */
function recordOwnVariables(): Set<string> {
  const names = new Set<string>();
  const recorder = new Proxy<Environment>({}, { get: (_, name) => names.add(String(name)) && 'given' });
  try {
    loadWorkerSettings(recorder);
  } catch {
    // Most settings are no words; what counts is that they were asked for.
  }
  return names;
}

function checkForeignService(name: string, service: Service): void {
  const [image = '', tag = ''] = (service.image ?? '').split(':');
  const known = foreignVariables[image];
  if (!known) problems.push(`${name}: the variables of image ${image} are not known to this check`);
  for (const key of Object.keys(service.environment ?? {})) {
    if (known && !known.includes(key)) problems.push(`${name}: ${image} does not read ${key}`);
  }
  if (!/^\d+\.\d+(\.\d+)?$/.test(tag)) problems.push(`${name}: ${image} is not pinned to a version`);
}

function checkReferences(name: string, service: Service): void {
  for (const [other, { condition }] of Object.entries(service.depends_on ?? {})) {
    const target = compose.services[other];
    if (!target) problems.push(`${name}: depends on ${other}, which is not there`);
    if (condition === 'service_healthy' && target && !target.healthcheck) {
      problems.push(`${name}: waits for ${other} to be healthy, which has no health check`);
    }
  }
  for (const { source } of service.configs ?? []) {
    if (!compose.configs?.[source]) problems.push(`${name}: there is no config ${source}`);
  }
  for (const volume of service.volumes ?? []) {
    const source = volume.split(':')[0]!;
    if (!/^[./]/.test(source) && !(source in (compose.volumes ?? {}))) problems.push(`${name}: no volume ${source}`);
  }
  for (const port of service.ports ?? []) {
    if (!port.startsWith('127.0.0.1:')) problems.push(`${name}: port ${port} is open to other machines`);
  }
}

/** A secret must be given, or be empty when nothing was: never a default that everybody knows. */
function checkSecrets(): void {
  for (const [, variable, rest = ''] of text.matchAll(/(?<!\$)\$\{([A-Z0-9_]+)([^}]*)\}/g)) {
    if (/PASSWORD|SECRET|MASTER_KEY/.test(variable!) && rest !== ':-' && !rest.startsWith(':?')) {
      problems.push(`\${${variable}${rest}} has a default or none at all; use \${${variable}:?…}`);
    }
  }
}

function checkVersions(): void {
  const tagsOf = (image: string) =>
    Object.values(compose.services)
      .filter((service) => service.image?.startsWith(`${image}:`))
      .map((service) => service.image!.split(':')[1]);
  const tags = new Set([...tagsOf('temporalio/server'), ...tagsOf('temporalio/admin-tools')]);
  if (tags.size !== 1) problems.push(`server and admin-tools differ in version: ${[...tags].join(', ')}`);
}

function checkConnections(): void {
  const setting = compose.services.postgres?.command?.find((argument) => argument.startsWith('max_connections='));
  const available = Number(setting?.split('=')[1] ?? 100);
  let needed = reservedConnections;
  for (const service of Object.values(compose.services)) {
    const { SQL_MAX_CONNS, SQL_VIS_MAX_CONNS } = service.environment ?? {};
    if (service.image?.startsWith('temporalio/server:')) {
      needed += temporalServices * (Number(SQL_MAX_CONNS ?? 20) + Number(SQL_VIS_MAX_CONNS ?? 10));
    }
    if (service.build) {
      const pool = loadConfig({
        DATABASE_URL: 'x',
        ...pick(service, 'DATABASE_MAX_CONNECTIONS'),
      }).databaseMaxConnections;
      needed += pool * (service.deploy?.replicas ?? 1);
    }
  }
  if (needed > available) problems.push(`up to ${needed} connections are asked of PostgreSQL, which has ${available}`);
}

function checkDockerfile(): void {
  for (const [, source] of dockerfile.matchAll(/^COPY (?!--from)(.+) \S+$/gm)) {
    for (const file of source!.split(' ')) {
      if (!existsSync(path.join(projectRoot, file))) problems.push(`Dockerfile: ${file} does not exist`);
      if (dockerignore.includes(file)) problems.push(`Dockerfile: ${file} is left out by .dockerignore`);
    }
  }
  for (const [, file] of dockerfile.matchAll(/^RUN node (\S+)/gm)) checkFileInImage(`Dockerfile: ${file}`, file!);
  for (const [, name] of dockerfile.matchAll(/^ENV (\w+)=/gm)) {
    if (!ownVariables.has(name!) && !libraryVariables.test(name!)) problems.push(`Dockerfile: nobody reads ${name}`);
  }
  const command = /^CMD \["node", "(.+)"\]$/m.exec(dockerfile)?.[1];
  if (!command) problems.push('Dockerfile: no CMD of node with a file');
  else checkFileInImage(`Dockerfile: ${command}`, command);
  if (!/^USER (?!root)/m.test(dockerfile)) problems.push('Dockerfile: runs as root');
}

/** Each setting has a row, and each row a setting. */
function checkReadme(): void {
  const rows = read('README.md')
    .split('\n')
    .filter((line) => line.startsWith('| `'));
  const named = new Set(rows.flatMap((row) => row.split(' | ')[0]!.match(/\b[A-Z][A-Z0-9_]{3,}\b/g) ?? []));
  // Some are read in lower case as well.
  for (const name of ownVariables)
    if (!named.has(name.toUpperCase())) problems.push(`README.md: the settings lack ${name}`);
  for (const name of named) {
    const isOwn = /^(CARILLON|APNS|FCM|DATABASE)_.*[^_]$/.test(name) && !name.startsWith('CARILLON_TEST_');
    if (isOwn && !ownVariables.has(name)) problems.push(`README.md: nobody reads ${name}`);
  }
}

function checkFileInImage(what: string, file: string): void {
  if (!existsSync(path.join(projectRoot, file))) problems.push(`${what} does not exist`);
  const folder = file.split('/')[0]!;
  if (!new RegExp(`^COPY (.* )?${folder} `, 'm').test(dockerfile))
    problems.push(`${what} is not copied into the image`);
}

/** As Compose does it, with a value for what must be given. */
function interpolate(value: string): string {
  return value.replaceAll(/\$\{[A-Z0-9_]+(?::([-?])([^}]*))?\}/g, (_, kind, rest) => (kind === '-' ? rest : 'given'));
}

function pick(service: Service, name: string): Environment {
  const value = service.environment?.[name];
  return value === undefined ? {} : { [name]: interpolate(String(value)) };
}
