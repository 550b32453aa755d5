import type { ApnsEnvironment, ProviderName } from './device.ts';
import type { InDoubtPolicy } from './notification-state.ts';

/** A mobile app: its devices, sends, credentials and keys are its own. */
export interface App {
  id: number;
  name: string;
  /** The bundle id; undefined with a credential from files: as the environment says. */
  apnsTopic: string | undefined;
  /** Further bundle ids that a message may name. */
  apnsTopics: string[];
  /** Of devices that name none. */
  apnsEnvironment: ApnsEnvironment;
  /** Default: the service account's. */
  fcmProjectId: string | undefined;
  /** Of messages and notifications that name none. */
  defaultTtlSeconds: number | undefined;
  defaultInDoubtPolicy: InDoubtPolicy;
  /** Registrations of further devices are refused. */
  maxDevices: number | undefined;
  /** Devices per second over all workers, sends and lanes; null: no limit. */
  rates: Record<ProviderName, number | null>;
  /** Grows with every change that workers must follow: of credentials, topic, environment, project. */
  version: number;
  createdAt: Date;
  updatedAt: Date;
  /** Set: the app is being deleted. */
  deletion: AppDeletion | undefined;
}

/** What may be changed of an app; its name may not, which is in URLs and in claims. */
export type AppSettings = Pick<
  App,
  | 'apnsTopic'
  | 'apnsTopics'
  | 'apnsEnvironment'
  | 'fcmProjectId'
  | 'defaultTtlSeconds'
  | 'defaultInDoubtPolicy'
  | 'maxDevices'
  | 'rates'
>;

/** How far the deletion of an app is. The counts are of rows that are gone so far. */
export interface AppDeletion {
  /** ISO 8601 */
  requestedAt: string;
  /** All that was under way was asked to end. ISO 8601; absent: not yet. */
  cancelledAt?: string;
  devices: number;
  notifications: number;
  messages: number;
}

/** App `default` exists from the first migration on; credentials from files are its own. */
export const defaultAppName = 'default';
