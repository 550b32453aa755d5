/** A simulator in the test's own process, with what nearly every test needs around it. */

import type { ClientHttp2Session } from 'node:http2';
import { after, before, beforeEach } from 'node:test';
import { SimulatorControl } from '../../simulator/control-client.ts';
import { type Simulator, type SimulatorOptions, startSimulator } from '../../simulator/simulator.ts';
import {
  type Answer,
  apnsHeaders,
  createProviderToken,
  fcmHeaders,
  fetchAccessToken,
  openSession,
  send,
} from './clients.ts';

export const nid = '0198c0de-0001-7abc-8def-0123456789ab';
export const apnsBody = JSON.stringify({ aps: { alert: { title: 'Hello' } }, nid });

export interface SimulatorFixture {
  readonly simulator: Simulator;
  readonly control: SimulatorControl;
  /** A new connection; closed at the end of the test. */
  open(url: string): Promise<ClientHttp2Session>;
  /** Sends to APNs, by a valid provider token unless the changes say otherwise. */
  push(
    session: ClientHttp2Session,
    deviceToken: string,
    changes?: Record<string, string | undefined>,
    body?: string | Buffer,
  ): Promise<Answer>;
  /** Sends a message of FCM's to a device, with fields added or replaced. */
  pushFcm(session: ClientHttp2Session, registrationToken: string, changes?: Record<string, unknown>): Promise<Answer>;
  /** Sends any body to FCM. */
  postFcm(session: ClientHttp2Session, body: string | Buffer): Promise<Answer>;
}

/** One simulator for the file; ledger, rules and connections are as new for every test. */
export function useSimulator(options: SimulatorOptions = {}): SimulatorFixture {
  let simulator: Simulator;
  let control: SimulatorControl;
  let providerToken = '';
  let accessToken = '';
  let sessions: ClientHttp2Session[] = [];

  before(async () => {
    simulator = await startSimulator(options);
    control = new SimulatorControl(simulator.controlUrl);
    providerToken = createProviderToken(simulator);
  });
  beforeEach(async () => {
    for (const session of sessions) session.destroy();
    sessions = [];
    await control.resetFaults();
    // A connection that was made a black hole never notices that its client has gone.
    await control.resetConnections();
    await control.resetLedger();
    accessToken = await fetchAccessToken(simulator);
    await control.resetLedger();
  });
  after(async () => {
    for (const session of sessions) session.destroy();
    await simulator.close();
  });

  return {
    get simulator() {
      return simulator;
    },
    get control() {
      return control;
    },
    async open(url) {
      const session = await openSession(url, simulator);
      sessions.push(session);
      return session;
    },
    push(session, deviceToken, changes = {}, body = apnsBody) {
      const headers = apnsHeaders(simulator, deviceToken, { authorization: `bearer ${providerToken}`, ...changes });
      return send(session, headers, body);
    },
    pushFcm(session, registrationToken, changes = {}) {
      const message = { token: registrationToken, notification: { title: 'Hello' }, data: { nid }, ...changes };
      return send(session, fcmHeaders(accessToken), JSON.stringify({ message }));
    },
    postFcm(session, body) {
      return send(session, fcmHeaders(accessToken), body);
    },
  };
}
