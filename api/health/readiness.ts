import { databaseErrorCode, describeDatabaseError, probeDatabase } from '../../db/database-error.ts';
import { type HaltedLane, listHaltedLanesOfAllApps } from '../../db/halted-lanes.ts';
import { type LaneBehind, listLanesBehindOfAllApps } from '../../db/lanes-behind.ts';
import { type MigrationState, readMigrationState } from '../../db/migration-state.ts';
import { listMuteAppsOfAllApps, type MuteApp } from '../../db/mute-apps.ts';
import { listUnreachableHostsOfAllApps } from '../../db/provider-hosts.ts';
import type { UnreachableHost } from '../../domain/notification.ts';
import { within } from '../../domain/within.ts';
import type { ApiDependencies } from '../dependencies.ts';

export interface Readiness {
  /** Requests can be served. */
  isReady: boolean;
  database: Part;
  /** Null: the database cannot be used. */
  migrations: MigrationState | null;
  temporal: Part;
  unreachable: UnreachableHost[];
  muteApps: MuteApp[];
  haltedLanes: HaltedLane[];
  lanesBehind: LaneBehind[];
}

/** Something that this process needs from outside. */
interface Part {
  /** `reachable`, or why not. */
  is: string;
  /** When this process found it so; null: all is well. */
  wrongSince: Date | null;
}

type DatabaseAnswer = Pick<Readiness, 'migrations' | 'unreachable' | 'muteApps' | 'haltedLanes' | 'lanesBehind'> & {
  is: string;
};

const databaseDeadlineMs = 2_000;
/** A lane that was left is woken after 12 s at the latest. */
const behindSeconds = 15;
const reachable = 'reachable';

/**
 * Answers what a load balancer asks every second: each question within about two seconds, and the parts themselves are asked once for
 * all questions of a second, however many come. A database that does not answer has one set of statements under way, not one a question.
 */
export class ReadinessCheck {
  readonly #deps: ApiDependencies;
  readonly #now: () => Date;
  readonly #elapsedMs: () => number;
  #last: { answer: Promise<Readiness>; at: number } | undefined;
  #database: Promise<DatabaseAnswer> | undefined;
  #databaseWrongSince: Date | null = null;
  #temporalWrongSince: Date | null = null;
  /** Logged once for each fault, not with every question. */
  #logged: string | undefined;

  constructor(deps: ApiDependencies) {
    this.#deps = deps;
    this.#now = deps.now ?? (() => new Date());
    this.#elapsedMs = deps.elapsedMs ?? (() => performance.now());
  }

  async read(): Promise<Readiness> {
    const { readinessTtlMs = 1_000, stopping } = this.#deps;
    const at = this.#elapsedMs();
    if (this.#last === undefined || at - this.#last.at >= readinessTtlMs) this.#last = { answer: this.#ask(), at };
    const answer = await this.#last.answer;
    return stopping?.aborted ? { ...answer, isReady: false } : answer;
  }

  async #ask(): Promise<Readiness> {
    const [{ is, ...rest }, temporal] = await Promise.all([this.#askDatabase(), this.#deps.waker.check()]);
    this.#databaseWrongSince = is === reachable ? null : (this.#databaseWrongSince ?? this.#now());
    this.#temporalWrongSince = temporal === reachable ? null : (this.#temporalWrongSince ?? this.#now());
    return {
      ...rest,
      isReady: is === reachable && rest.migrations?.missing.length === 0,
      database: { is, wrongSince: this.#databaseWrongSince },
      temporal: { is: temporal, wrongSince: this.#temporalWrongSince },
    };
  }

  async #askDatabase(): Promise<DatabaseAnswer> {
    this.#database ??= this.#readDatabase().finally(() => {
      this.#database = undefined;
    });
    return (await within(this.#database, databaseDeadlineMs)) ?? unusable(`no answer within ${databaseDeadlineMs} ms`);
  }

  async #readDatabase(): Promise<DatabaseAnswer> {
    const { db } = this.#deps;
    try {
      await probeDatabase(db);
      const migrations = await readMigrationState(db);
      const { missing } = migrations;
      if (missing.length > 0) {
        this.#logOnce(missing.join(), { missing }, 'not ready: the database lacks migrations; run npm run migrate');
        return { ...unusable(reachable), migrations };
      }
      const [unreachable, muteApps, haltedLanes, lanesBehind] = await Promise.all([
        listUnreachableHostsOfAllApps(db),
        listMuteAppsOfAllApps(db),
        listHaltedLanesOfAllApps(db),
        listLanesBehindOfAllApps(db, behindSeconds),
      ]);
      this.#logged = undefined;
      return { is: reachable, migrations, unreachable, muteApps, haltedLanes, lanesBehind };
    } catch (error) {
      const fault = databaseErrorCode(error);
      this.#logOnce(fault, { reason: describeDatabaseError(error) }, 'not ready: the database cannot be used');
      return unusable(`unusable (${fault})`);
    }
  }

  #logOnce(fault: string, fields: object, message: string): void {
    if (this.#logged !== fault) this.#deps.log.error(fields, message);
    this.#logged = fault;
  }
}

function unusable(is: string): DatabaseAnswer {
  return { is, migrations: null, unreachable: [], muteApps: [], haltedLanes: [], lanesBehind: [] };
}
