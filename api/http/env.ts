import type { Logger } from '../../domain/logger.ts';

/** Who asks. */
export interface Caller {
  appId: number;
  /** The id of the API key, or the subject of the JWT. */
  subject: string;
  scopes: string[];
}

/** What a request carries past its middleware. */
export interface ApiEnv {
  Variables: { requestId: string; log: Logger; caller: Caller; hasBody: boolean };
}
