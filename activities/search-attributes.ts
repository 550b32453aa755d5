import type { Client } from '@temporalio/client';
import type { Logger } from '../domain/logger.ts';
import { pause } from '../domain/pause.ts';
import { searchAttributeTypes } from '../domain/search-attributes.ts';
import { grpcErrorOf, isTemporalAway } from './temporal-away.ts';

/** `temporal.api.enums.v1.IndexedValueType` */
const indexedValueTypes = { Keyword: 2, Int: 3 } as const;
const attributes = Object.entries(searchAttributeTypes);
/** Refused where one is missing, or has another type; finds nothing otherwise. */
const proof = attributes
  .map(([name, type]) => (type === 'Int' ? `${name} < 0` : `${name} STARTS_WITH "?"`))
  .join(' AND ');
const callMs = 5_000;
const firstPauseMs = 250;
const longestPauseMs = 60_000;
/** They are there a moment after they were added; where they are not by then, a person is needed. */
const patienceMs = 10_000;

/** Whether the namespace has the attributes of `searchAttributeTypes`: workflows set none before. */
export class SearchAttributes {
  /** From the moment on in which they were found. Whoever deletes them later stops every send. */
  isOn = false;
  readonly #client: Client;
  readonly #log: Logger;
  /** Every server of Temporal believes for so long what it knew. `system.namespaceCacheRefreshInterval` */
  readonly #settleMs: number;

  constructor(client: Client, log: Logger, settleMs = 3_000) {
    this.#client = client;
    this.#log = log;
    this.#settleMs = settleMs;
  }

  /**
   * Adds what is missing, until all are there or the process stops: on Temporal's own server a worker may. Where it may not, says once
   * what an operator has to do, and looks again every minute. Never throws; sends do not wait for it.
   */
  async register(stop: AbortSignal): Promise<void> {
    let isTold = false;
    let wasAdded = false;
    for (let pauseMs = firstPauseMs; !stop.aborted; pauseMs = Math.min(2 * pauseMs, longestPauseMs)) {
      let reason: string | undefined;
      try {
        reason = await this.#whatIsMissing();
        if (reason === undefined) {
          if (wasAdded) await pause(this.#settleMs, stop);
          this.isOn = true;
          this.#log.info({}, 'sends are shown with search attributes in Temporal');
          return;
        }
        await this.#add();
        wasAdded = true;
        if (pauseMs < patienceMs) reason = undefined;
      } catch (err) {
        if (isTemporalAway(err)) this.#log.debug({ err }, 'search attributes are looked for later');
        else reason = grpcErrorOf(err)?.details ?? String(err);
      }
      if (reason !== undefined && !isTold) {
        isTold = true;
        this.#log.warn(
          { reason, ...howToAdd(this.#client.options.namespace) },
          'Temporal has no search attributes for sends',
        );
      }
      await pause(pauseMs, stop);
    }
  }

  /** In the server's words; undefined: nothing. */
  async #whatIsMissing(): Promise<string | undefined> {
    try {
      await this.#client.withDeadline(Date.now() + callMs, () => this.#client.workflow.count(proof));
      return undefined;
    } catch (error) {
      const grpc = grpcErrorOf(error);
      // INVALID_ARGUMENT
      if (grpc?.code === 3) return grpc.details;
      throw error;
    }
  }

  /** Those that are there already are left as they are. */
  async #add(): Promise<void> {
    const { connection, options } = this.#client;
    const types = attributes.map(([name, type]) => [name, indexedValueTypes[type]] as const);
    await this.#client.withDeadline(Date.now() + callMs, () =>
      connection.operatorService.addSearchAttributes({
        namespace: options.namespace,
        searchAttributes: Object.fromEntries(types),
      }),
    );
  }
}

/** The exact commands, by kind of server. */
function howToAdd(namespace: string) {
  const flags = attributes.map(([name, type]) => `--name ${name} --type ${type}`);
  const cloudFlags = attributes.map(([name, type]) => `--search-attribute "${name}=${type}"`);
  return {
    selfHosted: `temporal operator search-attribute create --namespace ${namespace} ${flags.join(' ')}`,
    cloud: `tcld namespace search-attributes add --namespace ${namespace} ${cloudFlags.join(' ')}`,
  };
}
