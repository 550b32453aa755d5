import type { Kysely } from 'kysely';
import { findAppOfAnyApp, listAppVersionsOfAllApps } from '../db/apps.ts';
import { findCredentialInUse, noteCredentialRefusedOfAnyApp, noteCredentialUsedOfAnyApp } from '../db/credentials.ts';
import type { MasterKeys } from '../db/master-keys.ts';
import type { Database } from '../db/schema.ts';
import { SealedTextError } from '../db/sealed-text.ts';
import { defaultAppName } from '../domain/app.ts';
import type { ProviderName } from '../domain/device.ts';
import type { Logger } from '../domain/logger.ts';
import { pause } from '../domain/pause.ts';
import { CredentialError } from '../providers/credentials/credential-error.ts';
import type { ProviderSurroundings } from '../providers/description.ts';
import type { ConfiguredProviders } from '../providers/open.ts';
import type { PushProvider } from '../providers/provider.ts';
import type { Halt } from './delivery/run-end.ts';

/** A provider of an app, for one run of a sender. */
export interface ProviderLease {
  provider: PushProvider;
  /** Aborted once another credential or setting is to be used: the run ends as for a shutdown, and the next one leases anew. */
  replaced: AbortSignal;
  /** The stored credential's id; undefined: it comes from files. */
  credentialId: string | undefined;
  release(): void;
}

/** Why nothing can be sent: one sentence for the person on call. */
export interface NoProvider {
  fault: string;
}

/** Where runs get their providers from. */
export interface ProviderSource {
  lease(appId: number, provider: ProviderName): Promise<ProviderLease | NoProvider>;
}

/** Notes what was refused at the credential, and says in the halt which one it is. */
export async function blame(db: Kysely<Database>, { credentialId }: ProviderLease, halt: Halt): Promise<Halt> {
  if (halt.reason !== 'credentials' || credentialId === undefined) return halt;
  await noteCredentialRefusedOfAnyApp(db, credentialId, halt.detail);
  return { ...halt, detail: `${halt.detail} Credential ${credentialId}.` };
}

/** How soon a change is followed, … */
const lookMs = 2_000;
/** … how often it is noted that a credential is in use, … */
const noteMs = 60_000;
/** … and how long the connections of an app that sends nothing stay open. */
const usualIdleMs = 60_000;

interface Opened {
  provider: PushProvider;
  credentialId: string | undefined;
  /** Of the certificate, by the clock that counts milliseconds since 1970. */
  expiresAtMs: number;
}

interface Entry {
  appId: number;
  /** Of the app, as it was when this was opened. */
  version: number;
  opened: Opened;
  leases: number;
  idleSince: number;
  isRetired: boolean;
  /** By a run since it was last noted, … */
  isUsed: boolean;
  /** … which was then. */
  notedAt: number;
  replaced: AbortController;
}

export interface AppProvidersOptions {
  db: Kysely<Database>;
  masterKeys: MasterKeys | undefined;
  configured: ConfiguredProviders;
  surroundings: ProviderSurroundings;
  log: Logger;
  /** Default a minute. */
  idleMs?: number;
}

/**
 * The providers of the apps that are being sent to, each with its own credential and connections. Opened by the first run that needs one,
 * closed a while after the last, exchanged when the app's credential or settings change.
 */
export class AppProviders implements ProviderSource {
  readonly #options: AppProvidersOptions;
  readonly #entries = new Map<string, Promise<Entry | NoProvider>>();
  /** Replaced, and still in use. */
  readonly #retired = new Set<Entry>();

  constructor(options: AppProvidersOptions) {
    this.#options = options;
  }

  /** @throws where the database is away */
  async lease(appId: number, name: ProviderName): Promise<ProviderLease | NoProvider> {
    const key = `${appId} ${name}`;
    let entry = this.#entries.get(key);
    if (entry === undefined) {
      entry = this.#open(appId, name);
      this.#entries.set(key, entry);
      // A fault is not kept: the next run asks again.
      const forget = () => this.#entries.delete(key);
      entry.then((found) => 'fault' in found && forget(), forget);
    }
    const found = await entry;
    if ('fault' in found) return found;
    // In the moment between the two.
    return found.isRetired ? this.lease(appId, name) : this.#leaseOf(found);
  }

  #leaseOf(entry: Entry): ProviderLease {
    entry.leases += 1;
    entry.isUsed = true;
    let isReleased = false;
    const { provider, credentialId } = entry.opened;
    return {
      ...{ provider, credentialId, replaced: entry.replaced.signal },
      release: () => {
        if (isReleased) return;
        isReleased = true;
        entry.leases -= 1;
        entry.idleSince = performance.now();
        if (entry.leases === 0 && this.#retired.delete(entry)) void this.#close(entry);
      },
    };
  }

  async #open(appId: number, name: ProviderName): Promise<Entry | NoProvider> {
    const { db, masterKeys, configured, surroundings } = this.#options;
    const app = await findAppOfAnyApp(db, appId);
    if (app === undefined) return { fault: 'The app is gone.' };
    const { fromFiles, open } = configured[name];
    try {
      const credential = await findCredentialInUse(db, masterKeys, appId, name);
      let provider: PushProvider;
      if (credential !== undefined) provider = await open(credential, app, surroundings);
      else if (fromFiles !== undefined && app.name === defaultAppName) provider = await fromFiles(app, surroundings);
      else return { fault: `App ${app.name} has no credential for ${name}: store one, then resume.` };
      const opened = {
        ...{ provider, credentialId: credential?.id },
        expiresAtMs: credential?.expiresAt?.getTime() ?? Number.POSITIVE_INFINITY,
      };
      const idleSince = performance.now();
      const replaced = new AbortController();
      return {
        appId,
        version: app.version,
        opened,
        leases: 0,
        idleSince,
        isRetired: false,
        isUsed: false,
        notedAt: Number.NEGATIVE_INFINITY,
        replaced,
      };
    } catch (error) {
      if (error instanceof CredentialError || error instanceof SealedTextError)
        return { fault: `${name} of app ${app.name}: ${error.message}` };
      throw error;
    }
  }

  /** Follows changes until `signal` is aborted. */
  async watch(signal: AbortSignal): Promise<void> {
    while (!signal.aborted) {
      await pause(lookMs, signal);
      await this.look().catch((err: unknown) =>
        this.#options.log.warn({ err }, 'changes of credentials could not be read, later again'),
      );
    }
  }

  /** One look: replaces what has changed, closes what is idle. */
  async look(): Promise<void> {
    const { db, idleMs = usualIdleMs } = this.#options;
    const known = new Map<string, Entry>();
    for (const [key, entry] of this.#entries) {
      const found = await entry.catch(() => undefined);
      if (found !== undefined && !('fault' in found)) known.set(key, found);
    }
    if (known.size === 0) return;
    const versions = await listAppVersionsOfAllApps(db, [...new Set([...known.values()].map(({ appId }) => appId))]);
    for (const [key, entry] of known) {
      if (entry.isUsed || entry.leases > 0) await this.#noteUse(entry);
      const { appId, version, opened, leases, idleSince } = entry;
      const isReplaced = versions.get(appId) !== version || opened.expiresAtMs <= Date.now();
      const isIdle = leases === 0 && performance.now() - idleSince >= idleMs;
      if (isReplaced || isIdle) this.#retire(key, entry);
    }
  }

  async #noteUse(entry: Entry): Promise<void> {
    const { credentialId } = entry.opened;
    if (credentialId === undefined || performance.now() - entry.notedAt < noteMs) return;
    entry.notedAt = performance.now();
    entry.isUsed = false;
    await noteCredentialUsedOfAnyApp(this.#options.db, credentialId);
  }

  #retire(key: string, entry: Entry): void {
    this.#entries.delete(key);
    entry.isRetired = true;
    if (entry.leases === 0) {
      void this.#close(entry);
      return;
    }
    this.#retired.add(entry);
    const { appId, opened } = entry;
    this.#options.log.info({ appId, provider: opened.provider.name }, 'credential or settings changed: opened anew');
    entry.replaced.abort();
  }

  async #close({ appId, opened: { provider } }: Entry): Promise<void> {
    await provider.close().catch((err: unknown) => {
      this.#options.log.warn({ err, appId, provider: provider.name }, 'a provider was not closed cleanly');
    });
  }

  async close(): Promise<void> {
    const entries = await Promise.allSettled(this.#entries.values());
    this.#entries.clear();
    const opened = entries.flatMap((entry) =>
      entry.status === 'fulfilled' && !('fault' in entry.value) ? [entry.value] : [],
    );
    await Promise.all([...opened, ...this.#retired].map((entry) => this.#close(entry)));
  }
}
