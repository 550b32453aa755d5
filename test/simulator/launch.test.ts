import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { test } from 'node:test';
import { SimulatorControl } from '../../simulator/control-client.ts';
import { apnsDeviceToken } from '../../simulator/device-tokens.ts';
import { launchSimulator } from '../../simulator/launch.ts';
import { until } from '../support/until.ts';
import { apnsHeaders, createProviderToken, openSession, send } from './clients.ts';
import { apnsBody } from './fixture.ts';

test('a launched simulator serves, and is gone after close', async () => {
  const simulator = await launchSimulator({ seed: 3, apnsTopics: ['dev.example.app'] });
  assert.equal(simulator.apnsTopic, 'dev.example.app');
  assert.equal(simulator.environment.APNS_URL, simulator.apnsUrl);
  const session = await openSession(simulator.apnsUrl, simulator);
  const authorization = `bearer ${createProviderToken(simulator)}`;
  const answer = await send(session, apnsHeaders(simulator, apnsDeviceToken(1), { authorization }), apnsBody);
  assert.equal(answer.status, 200);
  session.destroy();
  assert.equal((await new SimulatorControl(simulator.controlUrl).ledgerSummary()).accepted, 1);
  await simulator.close();
  await simulator.close();
  await simulator.ended;
  assert.throws(() => process.kill(simulator.pid, 0));
});

test('credentials in a folder outlive the process', async (t) => {
  const directory = mkdtempSync(join(tmpdir(), 'simulator-test-'));
  t.after(() => rmSync(directory, { recursive: true }));
  const first = await launchSimulator({ directory });
  const providerToken = createProviderToken(first);
  await first.close();
  const second = await launchSimulator({ directory });
  const session = await openSession(second.apnsUrl, first);
  const headers = apnsHeaders(second, apnsDeviceToken(1), { authorization: `bearer ${providerToken}` });
  assert.equal((await send(session, headers, apnsBody)).status, 200);
  session.destroy();
  await second.close();
});

test('a port that is taken is told', async () => {
  const first = await launchSimulator();
  const port = Number(new URL(first.controlUrl).port);
  await assert.rejects(launchSimulator({ ports: { control: port } }), /EADDRINUSE/);
  await first.close();
});

test('a killed parent leaves no simulator behind', async () => {
  const launch = new URL('../../simulator/launch.ts', import.meta.url).href;
  const script = `import { launchSimulator } from ${JSON.stringify(launch)};
    const simulator = await launchSimulator(); console.log(simulator.pid); setInterval(() => {}, 1000);`;
  const parent = spawn(process.execPath, ['--input-type=module-typescript', '-e', script], {
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  const [line] = await once(createInterface({ input: parent.stdout }), 'line');
  const pid = Number(line);
  process.kill(pid, 0);
  parent.kill('SIGKILL');
  const isAlive = () => {
    try {
      process.kill(pid, 0);
      return true;
    } catch {
      return false;
    }
  };
  await until(() => !isAlive());
});
