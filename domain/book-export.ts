import { exportBooksWorkflowId } from './ids.ts';
import type { Settings } from './settings.ts';

/** Where finished books are uploaded to: a bucket of S3, or of a store that speaks its protocol. */
export interface BookExportSettings {
  /** `CARILLON_EXPORT_S3_BUCKET`; unset: nothing is uploaded. */
  bucket: string;
  /** `CARILLON_EXPORT_S3_ENDPOINT`: the URL of another store than Amazon's. */
  endpoint: string | undefined;
  /** `CARILLON_EXPORT_S3_REGION`; unset: as the AWS SDK finds it, or us-east-1 where there is an endpoint. */
  region: string | undefined;
  /** `CARILLON_EXPORT_S3_PREFIX`: what all keys begin with; empty, or with a slash at its end. */
  prefix: string;
  /** `CARILLON_EXPORT_S3_FORCE_PATH_STYLE`: the bucket stands in the path, not in the host's name; default: where there is an endpoint. */
  isPathStyle: boolean;
  /** `CARILLON_EXPORT_S3_SINCE`: sends that ended from this day on; unset: from when the bucket was first set. */
  since: Date | undefined;
}

/** The credentials are found by the AWS SDK itself: `AWS_ACCESS_KEY_ID` and what else it knows. */
export function readBookExport(settings: Settings): BookExportSettings | undefined {
  const bucket = settings.text('CARILLON_EXPORT_S3_BUCKET');
  const endpoint = settings.text('CARILLON_EXPORT_S3_ENDPOINT');
  if (endpoint !== undefined && !/^https?:$/.test(URL.parse(endpoint)?.protocol ?? '')) {
    settings.problems.push('CARILLON_EXPORT_S3_ENDPOINT must be a URL of http or https');
  }
  const region = settings.text('CARILLON_EXPORT_S3_REGION') ?? (endpoint && 'us-east-1');
  const prefix = settings.text('CARILLON_EXPORT_S3_PREFIX')?.replace(/\/*$/, '/') ?? '';
  const style = ['true', 'false'] as const;
  const usual = endpoint === undefined ? 'false' : 'true';
  const isPathStyle = settings.oneOf('CARILLON_EXPORT_S3_FORCE_PATH_STYLE', style, usual) === 'true';
  const day = settings.text('CARILLON_EXPORT_S3_SINCE');
  const since = day === undefined ? undefined : new Date(`${day}T00:00:00Z`);
  if (since && (!/^\d{4}-\d\d-\d\d$/.test(day!) || Number.isNaN(since.getTime()))) {
    settings.problems.push(`CARILLON_EXPORT_S3_SINCE must be a day such as 2026-01-31, not "${day}"`);
  }
  return bucket === undefined ? undefined : { bucket, endpoint, region, prefix, isPathStyle, since };
}

/** Of `exportBooksWorkflow`. */
export interface ExportBooksInput {
  notificationId: string;
}

/** What was uploaded. Undefined: the notification has not ended. */
export type ExportBooksResult = { lines: number; bytes: number } | undefined;

/** The options of Temporal's start. A repeat finds the workflow that runs. */
export function bookExportStart(notificationId: string, taskQueue: string) {
  return {
    workflowId: exportBooksWorkflowId(notificationId),
    taskQueue,
    args: [{ notificationId }] as [ExportBooksInput],
    workflowIdReusePolicy: 'ALLOW_DUPLICATE',
    workflowIdConflictPolicy: 'USE_EXISTING',
    staticSummary: 'upload of finished books',
  } as const;
}
