/** Reads an APNs request's headers and checks everything that doesn't depend on the device. */
import type { Exchange } from '../exchange.ts';
import type { ApnsBody } from './body.ts';
import { isPushType, maxPayloadBytes, maxVoipPayloadBytes, topicSuffixes } from './topics.ts';

export interface ApnsRequest {
  method: string;
  path: string;
  /** As in the path; empty when there is none. */
  deviceToken: string;
  authorization: string | undefined;
  apnsId: string | undefined;
  apnsTopic: string | undefined;
  pushType: string | undefined;
  priority: string | undefined;
  expiration: string | undefined;
  collapseId: string | undefined;
  hasDuplicates: boolean;
}

const pathPrefix = '/3/device/';

export function readApnsRequest(exchange: Exchange): ApnsRequest {
  const request: ApnsRequest = {
    method: '',
    path: '',
    deviceToken: '',
    authorization: undefined,
    apnsId: undefined,
    apnsTopic: undefined,
    pushType: undefined,
    priority: undefined,
    expiration: undefined,
    collapseId: undefined,
    hasDuplicates: false,
  };
  const headers = exchange.headers;
  for (let i = 0; i < headers.length; i += 2) {
    const value = headers[i + 1]!;
    switch (headers[i]) {
      case ':method':
        request.method = value;
        break;
      case ':path':
        request.path = value;
        if (value.startsWith(pathPrefix)) request.deviceToken = value.slice(pathPrefix.length);
        break;
      case 'authorization':
        if (request.authorization !== undefined) request.hasDuplicates = true;
        request.authorization = value;
        break;
      case 'apns-id':
        if (request.apnsId !== undefined) request.hasDuplicates = true;
        request.apnsId = value;
        break;
      case 'apns-topic':
        if (request.apnsTopic !== undefined) request.hasDuplicates = true;
        request.apnsTopic = value;
        break;
      case 'apns-push-type':
        if (request.pushType !== undefined) request.hasDuplicates = true;
        request.pushType = value;
        break;
      case 'apns-priority':
        if (request.priority !== undefined) request.hasDuplicates = true;
        request.priority = value;
        break;
      case 'apns-expiration':
        if (request.expiration !== undefined) request.hasDuplicates = true;
        request.expiration = value;
        break;
      case 'apns-collapse-id':
        if (request.collapseId !== undefined) request.hasDuplicates = true;
        request.collapseId = value;
        break;
    }
  }
  return request;
}

/** A status and reason of Apple's table. */
export interface ApnsError {
  status: number;
  reason: string;
  /** 410 only. Milliseconds. */
  timestamp?: number;
}

export const uuid = /^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$/i;
const topicShape = /^[A-Za-z0-9._-]+$/;

/** Decides whether the request reaches a service at all. */
export function checkRoute(request: ApnsRequest): ApnsError | undefined {
  if (!request.path.startsWith(pathPrefix)) {
    return request.path === '/3/device' ? error(400, 'MissingDeviceToken') : error(404, 'BadPath');
  }
  if (request.method !== 'POST') return error(405, 'MethodNotAllowed');
  if (request.deviceToken.length === 0) return error(400, 'MissingDeviceToken');
  if (!/^[0-9a-f]+$/i.test(request.deviceToken)) return error(404, 'BadPath');
  return undefined;
}

/** The order among these checks is ours: Apple doesn't say. */
export function checkHeaders(
  request: ApnsRequest,
  topics: ReadonlySet<string>,
  needsTopic: boolean,
): ApnsError | undefined {
  if (request.hasDuplicates) return error(400, 'DuplicateHeaders');
  if (request.apnsId !== undefined && !uuid.test(request.apnsId)) return error(400, 'BadMessageId');
  if (request.expiration !== undefined && !/^\d{1,15}$/.test(request.expiration))
    return error(400, 'BadExpirationDate');
  const { priority, pushType, apnsTopic, collapseId } = request;
  if (priority !== undefined && priority !== '10' && priority !== '5' && priority !== '1') {
    return error(400, 'BadPriority');
  }
  if (pushType !== undefined && !isPushType(pushType)) return error(400, 'InvalidPushType');
  // An absent priority means 10.
  if (pushType === 'background' && (priority === undefined || priority === '10')) return error(400, 'BadPriority');
  if (apnsTopic === undefined || apnsTopic === '') {
    if (needsTopic) return error(400, 'MissingTopic');
  } else if (!topicShape.test(apnsTopic)) return error(400, 'BadTopic');
  else if (!isTopicAllowed(apnsTopic, pushType, topics)) return error(400, 'TopicDisallowed');
  if (collapseId !== undefined && Buffer.byteLength(collapseId, 'latin1') > 64) return error(400, 'BadCollapseId');
  return undefined;
}

export function checkBody(request: ApnsRequest, bodyBytes: number, body: ApnsBody): ApnsError | undefined {
  if (bodyBytes === 0) return error(400, 'PayloadEmpty');
  const limit = request.pushType === 'voip' ? maxVoipPayloadBytes : maxPayloadBytes;
  if (bodyBytes > limit) return error(413, 'PayloadTooLarge');
  // Apple names no reason for a body that is no JSON object; this is the nearest.
  if (!body.isJsonObject) return error(400, 'PayloadEmpty');
  return undefined;
}

/** A registered topic, with the suffix that its push type asks for. */
function isTopicAllowed(apnsTopic: string, pushType: string | undefined, topics: ReadonlySet<string>): boolean {
  if (pushType === undefined || !isPushType(pushType)) {
    return topics.has(apnsTopic) || Object.values(topicSuffixes).some((suffix) => hasSuffix(apnsTopic, suffix, topics));
  }
  const suffix = topicSuffixes[pushType];
  return suffix === '' ? topics.has(apnsTopic) : hasSuffix(apnsTopic, suffix, topics);
}

function hasSuffix(apnsTopic: string, suffix: string, topics: ReadonlySet<string>): boolean {
  return apnsTopic.endsWith(suffix) && topics.has(apnsTopic.slice(0, apnsTopic.length - suffix.length));
}

function error(status: number, reason: string): ApnsError {
  return { status, reason };
}
