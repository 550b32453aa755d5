import type { Audience } from './audience.ts';
import { cutTextToBytes } from './cut-text.ts';
import { notificationWorkflowId, wakeSignalName } from './ids.ts';
import type { Notification } from './notification.ts';

/** Temporal's limit for a summary is 400 bytes of JSON (`limit.userMetadataSummarySize`). */
const maxSummaryBytes = 390;

/** What a person sees of a send in Temporal's Web UI. Titles are the operators' own words; no ids of people, no device tokens. */
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
 * The options of Temporal's signal-with-start: the one way in which a workflow is started or woken, by the API and by the
 * reconciler. A run that ended or was terminated is followed by another, whose first step reads the state and may return.
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
    staticSummary: cutTextToBytes(title ?? audience, maxSummaryBytes),
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

function audienceInWords({ condition, externalIds, userIds }: Audience): string {
  const parts = [
    condition && 'devices that meet a condition',
    externalIds && `${externalIds.length} devices by id`,
    userIds && `devices of ${userIds.length} users`,
  ].filter((part) => part !== undefined);
  return parts.length === 0 ? 'every live device' : parts.join(', among them only ');
}
