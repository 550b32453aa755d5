/** The operator or program in front of the API during a run; tries again while the API or its database is away. */
import { createApiClient, type ImportResult, type NotificationView } from '../../local/api-client.ts';
import { patiently } from './patience.ts';

export interface Operator {
  /** Undefined while the notification cannot be read. */
  look(): Promise<NotificationView | undefined>;
  /** @returns false when the state did not allow it */
  ask(action: 'pause' | 'resume' | 'cancel'): Promise<boolean>;
  changeRate(ratePerSecond: number | null): Promise<void>;
  importDevices(rows: object[]): Promise<ImportResult>;
  forgetDevice(externalId: string): Promise<void>;
}

export function createOperator(apiUrl: string, apiKey: string, notificationId: string): Operator {
  const api = createApiClient(apiUrl, apiKey);
  const path = `/v1/notifications/${notificationId}`;
  return {
    look: () => api.get<NotificationView>(path).catch(() => undefined),
    async ask(action) {
      return (await request('POST', `${apiUrl}${path}/${action}`, apiKey, {})).status < 300;
    },
    async changeRate(ratePerSecond) {
      await request('PATCH', apiUrl + path, apiKey, { rate_per_second: ratePerSecond });
    },
    importDevices: (rows) =>
      patiently(async () => {
        const result = await api.importDevices(rows);
        if (result.imported !== rows.length) throw new Error(`the import took ${JSON.stringify(result)}`);
        return result;
      }),
    forgetDevice: (externalId) => patiently(() => api.delete(`/v1/devices/${externalId}`)),
  };
}

/** Launches under an idempotency key, so that a request whose answer was lost can be made again. @returns the id */
export async function launchOnce(apiUrl: string, apiKey: string, body: { title: string }): Promise<string> {
  const answer = await request('POST', `${apiUrl}/v1/notifications`, apiKey, body, { 'idempotency-key': body.title });
  const text = await answer.text();
  if (!answer.ok) throw new Error(`the launch was refused: ${answer.status} ${text}`);
  return (JSON.parse(text) as NotificationView).id;
}

/** Waits for the API's answer: yes, or a no that no repeat changes (a state that does not allow the call). */
export function request(
  method: string,
  url: string,
  apiKey: string,
  body?: object,
  headers: Record<string, string> = {},
): Promise<Response> {
  return patiently(async () => {
    const answer = await fetch(url, {
      method,
      headers: { authorization: `Bearer ${apiKey}`, ...(body && { 'content-type': 'application/json' }), ...headers },
      ...(body && { body: JSON.stringify(body) }),
    });
    if (answer.status >= 500) throw new Error(`${method} ${url}: ${answer.status} ${await answer.text()}`);
    return answer;
  });
}
