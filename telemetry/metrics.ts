import { Registry } from 'prom-client';

/** What a process counts, one for each process: `prom-client`, for it is the client that most know, small, and of no cost while nobody asks. */
export const registry = new Registry();
