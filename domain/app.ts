import type { ApnsEnvironment } from './device.ts';
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
  createdAt: Date;
  updatedAt: Date;
  /** Set: the app is being deleted. */
  deletion: AppDeletion | undefined;
}

/** Rows that are gone so far. */
export interface AppDeletion {
  /** ISO 8601 */
  requestedAt: string;
  devices: number;
  notifications: number;
  messages: number;
}

/** App `default` exists from the first migration on; credentials from files are its own. */
export const defaultAppName = 'default';
