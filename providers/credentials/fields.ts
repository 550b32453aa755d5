import type { CredentialKind } from '../../domain/credential.ts';
import type { JsonObject } from '../../domain/json.ts';
import { CredentialError } from './credential-error.ts';

/** The fields of one kind of credential, as the API takes them and as its secret keeps them. */
export class CredentialFields {
  readonly #kind: CredentialKind;
  readonly #fields: JsonObject;

  /** @throws {CredentialError} where a field belongs to another kind */
  constructor(kind: CredentialKind, fields: JsonObject, names: readonly string[]) {
    this.#kind = kind;
    this.#fields = fields;
    const stranger = Object.keys(fields).find((name) => !names.includes(name));
    if (stranger === undefined) return;
    throw new CredentialError(stranger, `A credential of kind ${kind} has no ${stranger}; it has ${names.join(', ')}.`);
  }

  text(name: string): string | undefined {
    const value = this.#fields[name];
    if (value === undefined || value === null) return undefined;
    if (typeof value === 'string') return value;
    throw new CredentialError(name, `${name} must be a text.`);
  }

  required(name: string): string {
    const text = this.text(name);
    if (text === undefined) throw new CredentialError(name, `A credential of kind ${this.#kind} needs ${name}.`);
    return text;
  }
}
