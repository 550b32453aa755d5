/** A set of devices: bit `i` is the device at position `i` of the batch's frozen array. */
export type Devices = number;
/** A count from 0 to 3 for each device, two bits each; 3 stands for more as well. */
export type Counts = number;

export const none: Devices = 0;
const maxDevices = 6;
const lists: Devices[][] = Array.from({ length: 1 << maxDevices }, (_, devices) =>
  Array.from({ length: maxDevices }, (_, position) => 1 << position).filter((device) => (devices & device) !== none),
);

/** One by one, in order. */
export const each = (devices: Devices): Devices[] => lists[devices]!;
export const sizeOf = (devices: Devices): number => each(devices).length;
export const firstDevices = (count: number): Devices => (1 << count) - 1;
export const lowestOf = (devices: Devices): Devices => devices & -devices;
/** Of the last one. */
export const positionOf = (devices: Devices): number => 31 - Math.clz32(devices);
export const countOf = (counts: Counts, device: Devices): number => (counts >> (2 * positionOf(device))) & 3;
const masks = lists.map((devices) => devices.reduce((mask, device) => mask | (3 << (2 * positionOf(device))), 0));
/** The counts of these devices, and 0 for all others. */
export const countsOf = (counts: Counts, devices: Devices): Counts => counts & masks[devices]!;

export function withCount(counts: Counts, device: Devices, count: number): Counts {
  return (counts & ~masks[device]!) | (Math.min(3, count) << (2 * positionOf(device)));
}
