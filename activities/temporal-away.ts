import { isGrpcServiceError } from '@temporalio/client';

/** UNAVAILABLE and DEADLINE_EXCEEDED (https://grpc.io/docs/guides/status-codes/): every further call would wait in vain. */
export function isTemporalAway(error: unknown): boolean {
  const { code } = grpcErrorOf(error) ?? {};
  return code === 14 || code === 4;
}

/** What the server said, where the client has wrapped it; undefined: another error. */
export function grpcErrorOf(error: unknown): { code: number; details: string } | undefined {
  const grpc = error instanceof Error && error.cause !== undefined ? error.cause : error;
  return isGrpcServiceError(grpc) ? grpc : undefined;
}
