import type { DeviceBehaviour, MarkedDeviceToken } from './device-tokens.ts';
import type { Action } from './rules.ts';

const actions: Partial<Record<DeviceBehaviour, Action>> = {
  hang: { type: 'stall', accept: true },
  acceptThenClose: { type: 'reset', accept: true },
  acceptOnceUnanswered: { type: 'rstStream', code: 'INTERNAL_ERROR', accept: true },
  refusedOnce: { type: 'rstStream', code: 'REFUSED_STREAM' },
  htmlError: { type: 'html', status: 502 },
};
const defaultSlowMs = 500;

/** The action that a marked device token asks for where APNs and FCM do not differ; undefined: none of this kind. */
export function tokenAction(
  behaviour: DeviceBehaviour | undefined,
  device: MarkedDeviceToken | undefined,
): Action | undefined {
  if (behaviour === 'slow') return { type: 'delay', latency: device?.parameter ?? defaultSlowMs };
  return behaviour && actions[behaviour];
}
