/** Client of a simulator's control API, for tests, benches and the demo. */
import type {
  Arrivals,
  ConnectionRequest,
  ConnectionView,
  LedgerEntry,
  LedgerSummary,
  OauthRequest,
  ProcessUsage,
  RecentRequest,
  RepeatedEntry,
  SettingsRequest,
} from './control-types.ts';
import type { QuotaOptions } from './fcm/quota.ts';
import type { Action, RuleInput, RuleMatch, RuleState } from './rules.ts';

/** Pairs in one lookup request, ids in one for arrivals; longer lists are cut into pages. */
const lookupPage = 10_000;

export class SimulatorControl {
  readonly #url: string;

  /** @param controlUrl Without a trailing slash, as the simulator tells it. */
  constructor(controlUrl: string) {
    this.#url = controlUrl;
  }

  /** Totals of one notification, or of everything since the last reset. */
  ledgerSummary(notificationId?: string): Promise<LedgerSummary> {
    return this.#get(`/ledger/summary${nidQuery(notificationId)}`);
  }

  /** What became of each device of a notification, in the order asked. */
  async lookup(notificationId: string, deviceTokens: readonly string[]): Promise<LedgerEntry[]> {
    const entries: LedgerEntry[] = [];
    for (let at = 0; at < deviceTokens.length; at += lookupPage) {
      const tokens = deviceTokens.slice(at, at + lookupPage);
      const page = await this.#post<{ entries: LedgerEntry[] }>('/ledger/lookup', { notificationId, tokens });
      entries.push(...page.entries);
    }
    return entries;
  }

  /** The last requests in full, oldest first. */
  async recentRequests(notificationId?: string): Promise<RecentRequest[]> {
    return (await this.#get<{ requests: RecentRequest[] }>(`/ledger/recent${nidQuery(notificationId)}`)).requests;
  }

  /** Devices that accepted the same notification more than once. */
  async repeatedEntries(notificationId?: string): Promise<RepeatedEntry[]> {
    const text = await (await this.#fetch('GET', `/ledger/entries${nidQuery(notificationId)}`)).text();
    return text === ''
      ? []
      : text
          .trimEnd()
          .split('\n')
          .map((line) => JSON.parse(line) as RepeatedEntry);
  }

  /** Milliseconds since the epoch by the simulator's clock; null when nothing came. */
  async lastReceivedAtMs(notificationId?: string): Promise<number | null> {
    const path = `/ledger/last-received-at${nidQuery(notificationId)}`;
    return (await this.#get<{ last_received_at_ms: number | null }>(path)).last_received_at_ms;
  }

  /** The same of the first request of each of many notifications, in the order asked. */
  async firstReceivedAtMs(notificationIds: readonly string[]): Promise<(number | null)[]> {
    const arrivals: (number | null)[] = [];
    for (let at = 0; at < notificationIds.length; at += lookupPage) {
      const page = { notificationIds: notificationIds.slice(at, at + lookupPage) };
      arrivals.push(...(await this.#post<Arrivals>('/ledger/first-received-at', page)).first_received_at_ms);
    }
    return arrivals;
  }

  /** Forgets all requests, also for "once" behaviours. Rules and settings stay. */
  resetLedger(): Promise<void> {
    return this.#post('/ledger/reset', {});
  }

  addRule(match: RuleMatch, action: Action, times?: number): Promise<RuleState> {
    const rule: RuleInput = { match, action, ...(times === undefined ? {} : { times }) };
    return this.#post('/rules', rule);
  }

  async listRules(): Promise<RuleState[]> {
    return (await this.#get<{ rules: RuleState[] }>('/rules')).rules;
  }

  /** Removes one rule, or all. */
  async removeRules(id?: number): Promise<void> {
    await this.#fetch('DELETE', id === undefined ? '/rules' : `/rules?id=${id}`);
  }

  /** Resets rules, settings, OAuth, clock, quota and revocations to their state after the start. */
  resetFaults(): Promise<void> {
    return this.#post('/reset-faults', {});
  }

  changeSettings(settings: SettingsRequest): Promise<unknown> {
    return this.#post('/settings', settings);
  }

  async listConnections(): Promise<ConnectionView[]> {
    return (await this.#get<{ connections: ConnectionView[] }>('/connections')).connections;
  }

  /** Sends GOAWAY on the chosen connections. This and the next calls return how many connections they hit. */
  goaway(which: ConnectionRequest = {}): Promise<{ affected: number }> {
    return this.#post('/connections/goaway', which);
  }

  resetConnections(which: ConnectionRequest = {}): Promise<{ affected: number }> {
    return this.#post('/connections/reset', which);
  }

  closeConnections(which: ConnectionRequest = {}): Promise<{ affected: number }> {
    return this.#post('/connections/close', which);
  }

  blackHole(which: ConnectionRequest = {}): Promise<{ affected: number }> {
    return this.#post('/connections/blackhole', which);
  }

  setMaxStreams(limit: number, which: ConnectionRequest = {}): Promise<{ affected: number }> {
    return this.#post('/connections/max-streams', { ...which, limit });
  }

  setClock(offsetMs: number): Promise<{ nowMs: number }> {
    return this.#post('/clock', { offsetMs });
  }

  setOauth(request: OauthRequest): Promise<unknown> {
    return this.#post('/oauth', request);
  }

  setQuota(options: Partial<QuotaOptions>): Promise<unknown> {
    return this.#post('/quota', options);
  }

  /** What the simulator has cost so far. */
  processUsage(): Promise<ProcessUsage> {
    return this.#get('/process');
  }

  async #get<T>(path: string): Promise<T> {
    return (await (await this.#fetch('GET', path)).json()) as T;
  }

  async #post<T>(path: string, body: unknown): Promise<T> {
    return (await (await this.#fetch('POST', path, body)).json()) as T;
  }

  async #fetch(method: string, path: string, body?: unknown): Promise<Response> {
    const response = await fetch(this.#url + path, {
      method,
      ...(body === undefined ? {} : { body: JSON.stringify(body), headers: { 'content-type': 'application/json' } }),
    });
    if (!response.ok)
      throw new Error(`simulator control ${method} ${path}: ${response.status} ${await response.text()}`);
    return response;
  }
}

function nidQuery(notificationId: string | undefined): string {
  return notificationId === undefined ? '' : `?nid=${encodeURIComponent(notificationId)}`;
}
