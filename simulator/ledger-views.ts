/** The ledger and the connections as the control API shows them. */
import { byProvider } from '../domain/device.ts';
import type { ConnectionView, LedgerSummary, RecentRequest, RepeatedEntry } from './control-types.ts';
import { findHeader, type SimulatorConnection } from './exchange.ts';
import { type Ledger, RequestCounts } from './ledger.ts';
import type { OauthServer } from './oauth/oauth-server.ts';
import type { LoggedRequest } from './request-log.ts';
import type { SimulatorState } from './state.ts';

export function ledgerSummary(state: SimulatorState, oauth: OauthServer, nid: string | undefined): LedgerSummary {
  const { ledger, counters, providerTokens, accessTokens, quota } = state;
  const counts = nid === undefined ? ledger.totals : (ledger.findNotification(nid)?.counts ?? new RequestCounts());
  const jwts = providerTokens.list();
  return {
    received: counts.received,
    accepted: counts.accepted,
    distinct_received: counts.distinctReceived,
    distinct_accepted: counts.distinctAccepted,
    repeats: counts.repeats,
    by_status_reason: Object.fromEntries(counts.byStatusReason),
    by_provider: byProvider((name) => ({
      received: counts.receivedByProvider[name],
      accepted: counts.acceptedByProvider[name],
    })),
    per_second: Object.fromEntries(counts.receivedPerSecond),
    first_received_at_ms: counts.firstReceivedAtMs || null,
    last_received_at_ms: counts.lastReceivedAtMs || null,
    in_flight: counters.inFlight,
    max_in_flight: counters.maxInFlight,
    connections_opened: counters.connectionsOpened,
    refused_streams: counters.refusedStreams,
    dropped_by_goaway: counters.droppedByGoaway,
    protocol_errors: counters.protocolErrors,
    last_protocol_error: counters.lastProtocolError,
    jwts_seen: jwts.length,
    jwts,
    oauth_requests: oauth.requests,
    oauth_mints: accessTokens.issued,
    quota_refused: quota.refused,
  };
}

export function* repeatedEntries(
  ledger: Ledger,
  nid: string | undefined,
  minAccepted: number,
): Iterable<RepeatedEntry> {
  const one = nid === undefined ? undefined : ledger.findNotification(nid);
  const notifications = nid === undefined ? ledger.listNotifications() : one === undefined ? [] : [one];
  for (const { notificationId, repeated } of notifications) {
    for (const [token, accepted] of repeated) {
      if (accepted >= minAccepted) yield { notification_id: notificationId, token, accepted };
    }
  }
}

export function requestView(request: LoggedRequest): RecentRequest {
  const headers: Record<string, string> = {};
  for (let i = 0; i < request.headers.length; i += 2) headers[request.headers[i]!] = request.headers[i + 1]!;
  return {
    provider: request.provider,
    listener: request.listener,
    received_at_ms: request.receivedAtMs,
    connection: request.connection,
    stream_id: request.streamId,
    method: request.method,
    path: request.path,
    headers,
    device_token: request.deviceToken,
    notification_id: request.notificationId,
    authorization: findHeader(request.headers, 'authorization')?.replace(/^\S+ /, '') ?? null,
    body: request.body.toString('utf8'),
    body_bytes: request.bodyBytes,
  };
}

export function connectionView(connection: SimulatorConnection): ConnectionView {
  return {
    id: connection.id,
    listener: connection.listener,
    protocol: connection.protocol,
    opened_at_ms: connection.openedAtMs,
    requests: connection.requests,
    open_streams: connection.openStreams,
    highest_stream_id: connection.highestStreamId,
  };
}
