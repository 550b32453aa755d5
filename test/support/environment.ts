import type { TestRun } from './services.ts';

/**
 * The servers that tests share. `npm test` starts them once and names them in the environment; a test file that is run alone
 * (`node --test test/…`) starts its own when it first asks, and they end with it.
 */
export const testEnvironment = {
  /** PostgreSQL, database `postgres`, a role that may create databases. */
  databaseAdminUrl: 'CARILLON_TEST_DATABASE_URL',
  /** `host:port` of Temporal; namespace `default`. */
  temporalAddress: 'CARILLON_TEST_TEMPORAL_ADDRESS',
  /** A folder of this run, removed at its end. */
  directory: 'CARILLON_TEST_DIRECTORY',
} as const;

/** The URL for making and dropping databases; its template is `templateDatabase` of services.ts. */
export async function getDatabaseAdminUrl(): Promise<string> {
  return process.env[testEnvironment.databaseAdminUrl] ?? (await ownPostgres()).adminUrl;
}

export async function getTemporalAddress(): Promise<string> {
  return process.env[testEnvironment.temporalAddress] ?? (await ownTemporal()).address;
}

/** A folder that may be written to and is removed when the run ends. */
export async function getTestDirectory(): Promise<string> {
  return process.env[testEnvironment.directory] ?? (await ownRun()).directory;
}

const ownRun = once(async (): Promise<TestRun> => (await import('./services.ts')).startTestRun());

const ownPostgres = once(async () => {
  const { startTestPostgres } = await import('./services.ts');
  const postgres = await startTestPostgres(await ownRun());
  postgres.child.unref();
  return postgres;
});

const ownTemporal = once(async () => {
  const { startTestTemporal } = await import('./services.ts');
  const temporal = await startTestTemporal(await ownRun());
  temporal.child.unref();
  return temporal;
});

function once<T>(start: () => Promise<T>): () => Promise<T> {
  let started: Promise<T> | undefined;
  return () => {
    started ??= start();
    return started;
  };
}
