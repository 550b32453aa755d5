import { fileURLToPath } from 'node:url';

/**
 * Where `npm start` says which database it runs on, so that a lost key can be replaced without looking for the database's
 * address and password.
 */
export const localDatabaseFile = fileURLToPath(new URL('../.carillon/database-url', import.meta.url));
