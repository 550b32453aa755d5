/**
 * A credential that cannot be used, with a sentence for the operator who has to replace it. It holds no key text and no cause: a
 * crypto library's error about a key may quote it.
 */
export class CredentialError extends Error {
  readonly code = 'credential_invalid';
  /** The field at fault, as the API and the settings name it: `private_key`, `key_id`, `service_account`, `token_uri`, … */
  readonly field: string;

  constructor(field: string, message: string) {
    super(message);
    this.name = 'CredentialError';
    this.field = field;
  }
}
