import { renameSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { providers } from '../providers/registry.ts';

type Environment = NodeJS.ProcessEnv;

/** Settings that name an existing Temporal server; each alone makes `@temporalio/envconfig` look elsewhere. */
const outerTemporalSettings = ['TEMPORAL_ADDRESS', 'TEMPORAL_PROFILE', 'TEMPORAL_CONFIG_FILE', 'TEMPORAL_API_KEY'];

/** Whether the environment names a Temporal server to be used instead of the embedded one. */
export function namesTemporal(env: Environment): boolean {
  return outerTemporalSettings.some((name) => env[name]);
}

/** Whether the environment holds credentials of a real provider, so that the simulator must not stand in. */
export function namesCredentials(env: Environment): boolean {
  return Object.values(providers).some(({ credentialSettings }) => credentialSettings.some((name) => env[name]));
}

/**
 * Points every client at one plain Temporal server, whatever the shell or the user's own `temporal.toml` says.
 * @param directory gets a file that takes the place of `temporal.toml`
 */
export function temporalEnvironment(address: string, namespace: string, directory: string): Environment {
  const configFile = path.join(directory, 'temporal.toml');
  // An empty file is refused by @temporalio/envconfig, so a process that starts meanwhile must never see it half-written.
  writeFileSync(`${configFile}.new`, '[profile.default]\n');
  renameSync(`${configFile}.new`, configFile);
  return { TEMPORAL_ADDRESS: address, TEMPORAL_NAMESPACE: namespace, TEMPORAL_CONFIG_FILE: configFile };
}

/** The environment without settings that lead to another Temporal server or to real providers. */
export function withoutSettings(env: Environment, prefixes: readonly string[]): Environment {
  return Object.fromEntries(
    Object.entries(env).filter(
      ([name]) => name === 'TEMPORAL_CLI' || !prefixes.some((prefix) => name.startsWith(prefix)),
    ),
  );
}
