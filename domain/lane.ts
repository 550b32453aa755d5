/**
 * Temporal hears of a lane's worker every two seconds. A dead one is missed after this time, and another takes the lane over a second
 * later.
 */
export const laneHeartbeatTimeoutMs = 3_500;

export interface KeepLaneInput {
  laneId: number;
}

/** Why a worker has left its lane. The next one goes on at once, unless nothing is in it, or it is gone with its app. */
export interface KeepLaneResult {
  reason: 'time is over' | 'worker shut down' | 'claimed by another' | 'idle' | 'gone';
}

/** Shown as heartbeat details in Temporal's UI. */
export interface LaneStatus {
  /** Requests, over the last seconds. */
  perSecond: number;
  /** Entries without an outcome, as the books said a few seconds ago. */
  waiting: number;
  /** Entries that wait for another attempt. */
  deferred: number;
  /** Why nothing is sent; undefined: it is. */
  stopped?: string;
}

/** Of `laneWorkflow`. */
export interface LaneWorkflowInput extends KeepLaneInput {
  /** For people. */
  summary: string;
  /** The queue of the provider's lanes. */
  taskQueue: string;
}
