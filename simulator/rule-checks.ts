/** Which fields rules have. Kept apart from what rules do. */
import { providerNames } from '../domain/device.ts';
import {
  anyNumber,
  BadRequest,
  checkFields,
  either,
  type Fields,
  flag,
  httpStatus,
  type Kind,
  needed,
  numberOf,
  oneOf,
  ordinal,
  text,
  wholeNumber,
} from './checks.ts';
import { errorCodes } from './error-codes.ts';
import type { Action, BodyDelivery, Latency, RuleInput, RuleMatch } from './rules.ts';

const matchFields: Fields<RuleMatch> = {
  provider: oneOf(providerNames),
  app: text,
  tokenPrefix: text,
  tokenHashPercent: numberOf('a number from 0 to 100', (value) => value >= 0 && value <= 100),
  notificationId: text,
  connection: wholeNumber,
  nth: ordinal,
  every: ordinal,
  from: ordinal,
  until: ordinal,
  probability: numberOf('a number from 0 to 1', (value) => value >= 0 && value <= 1),
};

const milliseconds = numberOf('a number of at least 0', (value) => value >= 0);
const aboveZero = numberOf('a number above 0', (value) => value > 0);

type Distribution = Exclude<Latency, number>;
const distributions: {
  [D in Distribution['distribution']]: Fields<Omit<Extract<Distribution, { distribution: D }>, 'distribution'>>;
} = {
  uniform: { minMs: needed(milliseconds), maxMs: needed(milliseconds) },
  logNormal: { p50Ms: needed(aboveZero), p99Ms: needed(aboveZero) },
  pareto: { minMs: needed(milliseconds), shape: needed(aboveZero) },
};

const deliveries: Record<BodyDelivery, true> = {
  whole: true,
  split: true,
  bytes: true,
  truncated: true,
  stalled: true,
};
const errorCode = either(oneOf(Object.keys(errorCodes)), wholeNumber);
const object: Kind = { what: 'an object', allows: (value) => typeof value === 'object' && value !== null };
const headers: Kind = {
  what: 'an object of texts',
  allows: (value) =>
    object.allows(value) && !Array.isArray(value) && Object.values(value as object).every((one) => text.allows(one)),
};

const actionFields: { [T in Action['type']]: Fields<Omit<Extract<Action, { type: T }>, 'type'>> } = {
  delay: { latency: needed(either(milliseconds, object)) },
  respond: {
    status: needed(httpStatus),
    reason: text,
    timestamp: anyNumber,
    headers,
    body: text,
    bodyBytes: wholeNumber,
    delivery: oneOf(Object.keys(deliveries)),
    accept: flag,
  },
  html: { status: needed(httpStatus), accept: flag },
  stall: { accept: flag },
  rstStream: { code: needed(errorCode), accept: flag },
  goaway: {
    last: either(oneOf(['this', 'previous', 'zero']), wholeNumber),
    code: errorCode,
    reason: text,
    debugData: text,
    twice: flag,
    closesWhenDone: flag,
  },
  reset: { accept: flag },
  end: { accept: flag },
  blackHole: { accept: flag },
  maxConcurrentStreams: { limit: needed(wholeNumber) },
};

export const ruleFields: Fields<RuleInput> = { match: object, action: needed(object), times: wholeNumber };

/** Checks what `ruleFields` do not: the fields inside. @throws {BadRequest} naming the field */
export function checkRule(value: unknown): asserts value is RuleInput {
  const { match, action } = value as { match?: unknown; action: object };
  if (match !== undefined) checkFields(match, matchFields, 'match.');
  checkVariant(action, 'type', actionFields, 'action.');
  if ('latency' in action && typeof action.latency === 'object') {
    checkVariant(action.latency!, 'distribution', distributions, 'action.latency.');
  }
}

/** An object in which one field says which fields the others are. */
function checkVariant(
  value: object,
  name: string,
  variants: Readonly<Record<string, Readonly<Record<string, Kind>>>>,
  where: string,
): void {
  const chosen = (value as Record<string, unknown>)[name];
  const kind = oneOf(Object.keys(variants));
  if (!kind.allows(chosen)) throw new BadRequest(`${where}${name} must be ${kind.what}`);
  checkFields(value, { [name]: kind, ...variants[chosen as string]! }, where);
}
