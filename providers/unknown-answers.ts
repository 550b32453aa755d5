import type { Logger } from '../domain/logger.ts';
import type { ProviderAnswer } from './answer.ts';

/** More words than any provider reaches by itself. */
const maxWords = 100;

/** Answers that a provider's table does not know: a new word in a million answers is worth one line in the log, not a million. */
export class UnknownAnswers {
  readonly #provider: string;
  readonly #logger: Logger;
  readonly #seen = new Set<string>();

  constructor(provider: string, logger: Logger) {
    this.#provider = provider;
    this.#logger = logger;
  }

  note({ httpStatus, text }: ProviderAnswer, { reason, isUnknown }: { reason: string; isUnknown: boolean }): void {
    const word = `${httpStatus} ${reason}`;
    if (!isUnknown || this.#seen.has(word) || this.#seen.size >= maxWords) return;
    this.#seen.add(word);
    this.#logger.warn({ httpStatus, reason, text }, `${this.#provider} gave an answer that is not in its table`);
  }
}
