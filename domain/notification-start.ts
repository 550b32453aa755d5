import type { Audience } from './audience.ts';
import { cutTextToBytes } from './cut-text.ts';
import { notificationWorkflowId, wakeSignalName } from './ids.ts';
import { jsonBytes, utf8Bytes } from './json.ts';
import type { Notification } from './notification.ts';

/** Temporal's limit for a summary, in bytes of JSON (`limit.userMetadataSummarySize`). */
const maxSummaryBytes = 400;

/** What an operator sees of a send in Temporal's Web UI. The title is the caller's own text; no ids of people, no device tokens. */
export interface NotificationLabels {
  appId: number;
  title: string | null;
  /** One line. */
  audience: string;
}

export function labelsOf({
  appId,
  title,
  audience,
}: Pick<Notification, 'appId' | 'title' | 'audience'>): NotificationLabels {
  return { appId, title, audience: audienceInWords(audience) };
}

/**
 * The options of Temporal's signal-with-start: the one way in which the API and the reconciler start or wake a workflow. It
 * starts a new run where the last one ended or was terminated; the run's first step reads the state and may return.
 */
export function notificationStart(notificationId: string, labels: NotificationLabels, taskQueue: string) {
  const { title, appId, audience } = labels;
  return {
    workflowId: notificationWorkflowId(notificationId),
    taskQueue,
    signal: wakeSignalName,
    args: [{ notificationId }],
    workflowIdReusePolicy: 'ALLOW_DUPLICATE',
    workflowIdConflictPolicy: 'USE_EXISTING',
    staticSummary: cutToSummary(title ?? audience),
    staticDetails: [
      `**${title ?? 'Notification'}**`,
      '',
      `- id: \`${notificationId}\``,
      `- app: ${appId}`,
      `- audience: ${audience}`,
    ].join('\n'),
    memo: { notificationId, title, appId, audience },
  } as const;
}

function cutToSummary(text: string): string {
  let cut = text;
  for (let excess = jsonBytes(cut) - maxSummaryBytes; excess > 0; excess = jsonBytes(cut) - maxSummaryBytes) {
    // JSON writes a byte as six at most.
    cut = cutTextToBytes(cut, utf8Bytes(cut) - Math.ceil(excess / 6));
  }
  return cut;
}

function audienceInWords({ condition, externalIds, userIds, uploaded }: Audience): string {
  const parts = [
    condition && 'devices that meet a condition',
    uploaded && 'devices of an uploaded list',
    externalIds && `${externalIds.length} devices by id`,
    userIds && `devices of ${userIds.length} users`,
  ].filter((part) => part !== undefined);
  return parts.length === 0 ? 'every live device' : parts.join(', among them only ');
}
