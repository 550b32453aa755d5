import { fileURLToPath } from 'node:url';

/**
 * Where `npm start` says which database it runs on, so that a lost key can be replaced without looking for the database's
 * address and password.
 */
export const localDatabaseFile = inStateDirectory('database-url');

/** Where `npm start` keeps its `CARILLON_MASTER_KEYS`: without them the credentials in its database are lost. */
export const localMasterKeysFile = inStateDirectory('master-keys');

function inStateDirectory(name: string): string {
  return fileURLToPath(new URL(`../.carillon/${name}`, import.meta.url));
}
