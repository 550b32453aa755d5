import type { Actor } from '../../domain/actor.ts';
import type { App } from '../../domain/app.ts';
import type { Logger } from '../../domain/logger.ts';
import type { Scope } from '../../domain/scopes.ts';

/** Who asks. */
export interface Caller {
  kind: 'key' | 'jwt' | 'operator';
  /** The id of the API key, the subject of the JWT, or the name of the operator. */
  subject: string;
  scopes: readonly Scope[];
  /** Undefined: an administrator, who names one with each request. */
  app: App | undefined;
  /** Undefined: as the settings say. */
  requestsPerSecond: number | undefined;
}

/** What a request carries past its middleware. */
export interface ApiEnv {
  Variables: {
    requestId: string;
    log: Logger;
    caller: Caller;
    /** The caller, as the audit tells it. */
    actor: Actor;
    findApp(name: string): Promise<App | undefined>;
    /** For what takes longer than a key is believed. */
    isStillValid(): Promise<boolean>;
    /** A further request by the limit of the caller, for bodies that stand for many: waits where there is none left. */
    awaitTurn(): Promise<void>;
    hasBody: boolean;
  };
}

/** The same on routes of an app. */
export interface AppEnv {
  Variables: ApiEnv['Variables'] & { app: App };
}
