/** Who changes something, as the audit tells it. */
export interface Actor {
  /** An API key, a JWT of the issuer, a person with the admin command, a worker by itself. */
  kind: 'key' | 'jwt' | 'operator' | 'worker';
  /** The key's id, the JWT's subject, the name that the operating system knows. */
  id: string;
  requestId: string | null;
  /** Of the network, as far as it is known. */
  address: string | null;
}

/** What workers do by themselves. */
export const workerActor: Actor = { kind: 'worker', id: 'worker', requestId: null, address: null };
