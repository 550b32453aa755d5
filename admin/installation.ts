import { existsSync, readFileSync } from 'node:fs';
import os from 'node:os';
import process from 'node:process';
import type { Kysely } from 'kysely';
import { createApp } from '../api/app.ts';
import { connect } from '../db/connect.ts';
import { describeDatabaseError, probeDatabase } from '../db/database-error.ts';
import { createMasterKeys, type MasterKeys } from '../db/master-keys.ts';
import type { Database } from '../db/schema.ts';
import type { Actor } from '../domain/actor.ts';
import { readConfig } from '../domain/config.ts';
import type { JsonObject } from '../domain/json.ts';
import type { Logger } from '../domain/logger.ts';
import { chooseProxy } from '../domain/proxy.ts';
import { ConfigError, type Environment, readSettings } from '../domain/settings.ts';
import { configureProviders } from '../providers/open.ts';
import { localDatabaseFile, localMasterKeysFile } from './local-files.ts';
import { type OptionNames, type Problem, Refusal, toRefusal } from './refusal.ts';

/** Where a command works: the database, the keys that seal what is secret in it, and the rules of the API. */
export interface Installation {
  db: Kysely<Database>;
  /** Undefined: none are set. */
  masterKeys: MasterKeys | undefined;
  actor: Actor;
  /**
   * Asks the API's own app, in this process and as the operator: its rules, its audit.
   * @throws {Refusal} for every answer that is none of 2xx, by the names of the command's options
   */
  ask(method: string, path: string, body?: object, names?: OptionNames): Promise<JsonObject>;
  close(): Promise<void>;
}

/** @throws {Refusal} where the database is away, was not migrated, or the environment does not say which one */
export async function openInstallation(name: string | undefined): Promise<Installation> {
  const { config, providers } = readEnvironment(environment());
  const { db, pool } = connect(config.databaseUrl, { maxConnections: 2, applicationName: 'carillon-admin' });
  try {
    await probeDatabase(db);
  } catch (error) {
    await db.destroy();
    throw new Refusal(`The database cannot be used: ${describeDatabaseError(error)}.`);
  }
  const operator = name ?? userName();
  let fault: unknown;
  const log: Logger = {
    ...{ debug() {}, info() {}, warn() {} },
    error(fields) {
      fault = (fields as { err?: unknown }).err;
    },
  };
  const masterKeys = createMasterKeys(config.masterKeys);
  const app = createApp({
    ...{ db, pool, log, operator, waker, masterKeys, providers },
    providerNetwork: { proxyFor: (url) => chooseProxy(config.proxy, url) },
  });
  return {
    ...{ db, masterKeys, actor: { kind: 'operator', id: operator, requestId: null, address: null } },
    async ask(method, path, body, names = {}) {
      const answer = await app.request(path, {
        method,
        ...(body && { body: JSON.stringify(body), headers: { 'content-type': 'application/json' } }),
      });
      const text = await answer.text();
      const value = text === '' ? {} : JSON.parse(text);
      if (answer.ok) return value;
      const problem = value as Problem;
      if (!ofThisProcess.has(problem.code)) throw toRefusal(problem, names);
      throw new Refusal(`${problem.detail} (${describeDatabaseError(fault)})`);
    },
    close: () => db.destroy(),
  };
}

/** Their reason the API tells its log alone. */
const ofThisProcess = new Set(['database_unavailable', 'internal']);

/** Nobody is woken: what this command changes, the workers' reconciler sees within seconds. */
const waker: Parameters<typeof createApp>[0]['waker'] = {
  wake: async () => 'deferred',
  deleteApp: async () => 'deferred',
  check: async () => 'not asked',
};

/** That of the process or, where it names no database, that of the `npm start` which runs here. */
function environment(): Environment {
  if (process.env.DATABASE_URL) return process.env;
  if (!existsSync(localDatabaseFile)) {
    throw new Refusal('DATABASE_URL is not set, and `npm start` does not run here.');
  }
  const masterKeys = existsSync(localMasterKeysFile) && {
    CARILLON_MASTER_KEYS: readFileSync(localMasterKeysFile, 'utf8'),
  };
  return { ...masterKeys, ...process.env, DATABASE_URL: readFileSync(localDatabaseFile, 'utf8') };
}

function readEnvironment(env: Environment) {
  try {
    return readSettings(env, (settings) => ({ config: readConfig(settings), providers: configureProviders(settings) }));
  } catch (error) {
    if (error instanceof ConfigError) throw new Refusal(error.message);
    throw error;
  }
}

/** Containers may run as a user who has no name. */
function userName(): string {
  try {
    return os.userInfo().username;
  } catch {
    return `uid ${process.getuid?.()}`;
  }
}
