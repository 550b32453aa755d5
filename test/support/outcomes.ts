import { type Claim, positionOf } from '../../db/batches.ts';
import { addToGroups, type DeliveryGroup, type Ended } from '../../db/delivery-groups.ts';

/** A device's outcome; what is left out is that of an accepted one. */
export interface OutcomeOf extends Partial<Ended> {
  deviceId: number;
  providerMessageId?: string | undefined;
}

export function groupsOf(claim: Claim, devices: OutcomeOf[]): DeliveryGroup[] {
  const groups: DeliveryGroup[] = [];
  for (const { deviceId, providerMessageId, ...ended } of devices) {
    const accepted: Ended = { outcome: 'accepted', reason: null, httpStatus: 200, attempts: 1, inDoubt: false };
    addToGroups(groups, { ...accepted, ...ended }, positionOf(claim, deviceId), providerMessageId);
  }
  return groups;
}
