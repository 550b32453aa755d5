/** Push types, their topic suffixes and payload limits (Apple, "Sending notification requests to APNs"). */
import { type ApnsPushType, apnsPushTypes } from '../../domain/message.ts';

export const topicSuffixes: Record<ApnsPushType, string> = {
  alert: '',
  background: '',
  voip: '.voip',
  complication: '.complication',
  fileprovider: '.pushkit.fileprovider',
  location: '.location-query',
  liveactivity: '.push-type.liveactivity',
  pushtotalk: '.voip-ptt',
  widgets: '.push-type.widgets',
  controls: '.push-type.controls',
};
export const maxPayloadBytes = 4096;
export const maxVoipPayloadBytes = 5120;

/** The only types that take token authentication alone. */
export const tokenOnlyPushTypes: ReadonlySet<string> = new Set(['location', 'liveactivity']);

export function isPushType(text: string): text is ApnsPushType {
  // `mdm` exists too, with a topic out of a device management certificate; nothing here sends it.
  return (apnsPushTypes as readonly string[]).includes(text);
}
