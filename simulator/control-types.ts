/** Requests and answers of the control API. Wire names of the ledger are snake_case, as people read them with curl. */
import type { ProviderName } from '../domain/device.ts';
import type { ErrorCodeName } from './error-codes.ts';
import type { ListenerName } from './exchange.ts';
import type { Admission } from './listener.ts';
import type { OauthFault } from './oauth/oauth-server.ts';
import type { SimulatorSettings } from './state.ts';

export interface ProviderCounts {
  received: number;
  accepted: number;
}

/** `GET /ledger/summary`: of one notification with `?nid=`, else of all. */
export interface LedgerSummary {
  received: number;
  accepted: number;
  distinct_received: number;
  /** Devices with at least one accepted request. */
  distinct_accepted: number;
  /** Acceptances beyond the first of the same device and notification. */
  repeats: number;
  /** By "<status> <reason>", or by the fault's name where there was no answer. */
  by_status_reason: Record<string, number>;
  by_provider: Record<ProviderName, ProviderCounts>;
  /** By UNIX second of the simulator's clock. */
  per_second: Record<string, number>;
  first_received_at_ms: number | null;
  last_received_at_ms: number | null;

  // The next members count the whole simulator, whatever the notification.
  in_flight: number;
  max_in_flight: number;
  connections_opened: number;
  refused_streams: number;
  dropped_by_goaway: number;
  /** Breaches of HTTP/2 by clients: 0 for a correct one. */
  protocol_errors: number;
  last_protocol_error: string;
  /** Different APNs provider tokens, refused ones included. */
  jwts_seen: number;
  jwts: { keyId: string | null; issuedAt: number; firstSeenAtMs: number }[];
  oauth_requests: number;
  oauth_mints: number;
  quota_refused: number;
}

export interface LookupRequest {
  notificationId: string;
  tokens?: string[];
  devices?: { token: string }[];
}

/** `POST /ledger/first-received-at`: of many notifications at once. */
export interface ArrivalsRequest {
  notificationIds: string[];
}

/** In the order asked; milliseconds since the epoch by the simulator's clock, null when nothing came. */
export interface Arrivals {
  first_received_at_ms: (number | null)[];
}

export interface LedgerEntry {
  token: string;
  /** Both counters stop at 255. */
  received: number;
  accepted: number;
}

/** A line of `GET /ledger/entries`. */
export interface RepeatedEntry {
  notification_id: string;
  token: string;
  accepted: number;
}

/** One request of `GET /ledger/recent`, oldest first. Headers are as received. */
export interface RecentRequest {
  provider: ProviderName;
  listener: string;
  received_at_ms: number;
  connection: number;
  stream_id: number;
  method: string;
  path: string;
  headers: Record<string, string>;
  device_token: string;
  notification_id: string;
  /** Without the scheme: APNs's JWT, FCM's access token. */
  authorization: string | null;
  body: string;
  body_bytes: number;
}

export interface ConnectionView {
  id: number;
  listener: ListenerName;
  protocol: 'h2' | 'http/1.1';
  opened_at_ms: number;
  requests: number;
  open_streams: number;
  highest_stream_id: number;
}

/** Chooses connections: by number, by listener, or all. The other members are for some routes only. */
export interface ConnectionRequest {
  connection?: number;
  listener?: ListenerName;
  code?: ErrorCodeName | number;
  /** Becomes the JSON that APNs sends as debug data. */
  reason?: string;
  debugData?: string;
  lastStreamId?: number;
  closesWhenDone?: boolean;
  /** For `max-streams`. */
  limit?: number;
}

export interface ClockRequest {
  /** Milliseconds that the simulator's clock is ahead of the machine's. */
  offsetMs: number;
}

export interface OauthRequest {
  expiresInSeconds?: number;
  fault?: OauthFault | null;
  /** Every access token issued so far is refused from now on. */
  revokeAll?: boolean;
}

export interface SettingsRequest extends Partial<SimulatorSettings> {
  /** What happens to new connections, … */
  admission?: Admission;
  /** … of this listener only. */
  admissionListener?: ListenerName;
  apnsTopics?: string[];
  fcmProjects?: string[];
  revokedKeyIds?: string[];
}

/** `GET /process`: what the simulator itself costs. */
export interface ProcessUsage {
  pid: number;
  /** Microseconds of CPU since the start, user and system. */
  cpu_us: number;
  rss_bytes: number;
}
