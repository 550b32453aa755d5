import type { Message } from '../../domain/message.ts';
import { isSilent } from '../payload/common.ts';
import { PayloadError } from '../payload/payload-error.ts';
import { apnsPushTypeRules } from './payload.ts';

/**
 * Why a text is no topic of an app; undefined where it is one. The provider adds the suffix of a push type to the bundle id: a topic that
 * already ends in one would have it twice.
 */
export function topicProblem(topic: string): string | undefined {
  const suffixes = Object.values(apnsPushTypeRules).map(({ topicSuffix }) => topicSuffix);
  const suffix = suffixes.find((text) => text !== '' && topic.endsWith(text));
  if (suffix !== undefined) {
    const bundleId = topic.slice(0, -suffix.length);
    return `must be the bundle id "${bundleId}", not "${topic}": "${suffix}" is added by the push type`;
  }
  if (/^[A-Za-z0-9._-]+$/.test(topic)) return undefined;
  return `must be a bundle id (letters, digits, ".", "-", "_"), not "${topic}"`;
}

/**
 * A message may name one of the app's own topics, each with the suffix of its push type.
 * @param topics bundle ids
 * @throws {PayloadError}
 */
export function checkTopic(message: Message, topics: string[]): void {
  const { headers } = (message.apns ?? {}) as { headers?: Record<string, string> };
  const topic = headers?.['apns-topic'];
  if (topic === undefined) return;
  const { topicSuffix } = apnsPushTypeRules[message.pushType ?? (isSilent(message) ? 'background' : 'alert')];
  const own = topics.map((bundleId) => bundleId + topicSuffix);
  if (own.includes(topic)) return;
  throw new PayloadError('apns.headers.apns-topic', `Is no topic of the app, which has ${own.join(', ')}.`);
}
