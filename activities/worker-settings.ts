import { type Config, readConfig } from '../domain/config.ts';
import { type Environment, readSettings } from '../domain/settings.ts';
import { type ConfiguredProviders, configureProviders } from '../providers/open.ts';

/** @throws {ConfigError} naming every variable that is missing or malformed, the providers' among them. */
export function loadWorkerSettings(env: Environment): { config: Config; configured: ConfiguredProviders } {
  return readSettings(env, (settings) => ({ config: readConfig(settings), configured: configureProviders(settings) }));
}
