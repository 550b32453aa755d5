/**
 * What Temporal's list of workflows can be filtered by and shows as columns. A workflow task that sets one that the namespace does not
 * have fails, and is tried again for ever: so a workflow sets them only where the result of an activity says that they are registered.
 */
export const searchAttributeTypes = {
  /** Of a send: `NotificationState`. */
  CarillonState: 'Keyword',
  /** The caller's own name for a send, as in its summary. */
  CarillonTitle: 'Keyword',
  /** By name. */
  CarillonApp: 'Keyword',
  /** Devices, as far as they are planned. */
  CarillonAudience: 'Int',
  /** Devices whose provider took the message. As of the last look while a send runs, exact when it has ended. */
  CarillonAccepted: 'Int',
  /** `HaltReason`; not there while a send is not halted. */
  CarillonHaltReason: 'Keyword',
} as const;

export type SearchAttribute = keyof typeof searchAttributeTypes;
