import path from 'node:path';

/** The folder that holds package.json. */
export const projectRoot = path.resolve(import.meta.dirname, '..');

/** Where `npm start` keeps its data, logs and fetched programs; safe to delete while nothing runs. */
export const stateDirectory = path.join(projectRoot, '.carillon');

/** Programs fetched at run time: only the Temporal dev server. */
export const binDirectory = path.join(stateDirectory, 'bin');
