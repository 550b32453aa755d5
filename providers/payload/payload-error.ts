/** The message as built can never be sent by a provider (too large, reserved key, contradictory fields). */
export class PayloadError extends Error {
  readonly code = 'payload_invalid';
  /** The message field at fault, as the API names it: `data.from`, `ttl`, … */
  readonly field: string;

  constructor(field: string, message: string) {
    super(message);
    this.name = 'PayloadError';
    this.field = field;
  }
}
