import { type RawBuilder, type SqlBool, sql } from 'kysely';
import type { Outcome } from '../domain/outcome.ts';

/** How a device ended. */
export interface Ended {
  outcome: Outcome;
  /** The provider's word, or ours; storable (see `storableReason`). */
  reason: string | null;
  httpStatus: number | null;
  attempts: number;
  /** The provider may have got it more than once. */
  inDoubt: boolean;
}

/** Devices of one batch that ended alike and are recorded together. */
export interface DeliveryGroup extends Ended {
  /** Of the devices in the batch's frozen array, in any order; each once. */
  positions: number[];
  /** The provider's id for each device's message, or undefined. */
  providerMessageIds: (string | undefined)[];
}

/** Adds a device to the group of those that ended like it. */
export function addToGroups(
  groups: DeliveryGroup[],
  ended: Ended,
  position: number,
  providerMessageId?: string | undefined,
): void {
  let group = groups.find((other) => isAlike(other, ended));
  if (group === undefined) {
    const { outcome, reason, httpStatus, attempts, inDoubt } = ended;
    group = { outcome, reason, httpStatus, attempts, inDoubt, positions: [], providerMessageIds: [] };
    groups.push(group);
  }
  group.positions.push(position);
  group.providerMessageIds.push(providerMessageId);
}

function isAlike(a: Ended, b: Ended): boolean {
  return (
    a.outcome === b.outcome &&
    a.attempts === b.attempts &&
    a.httpStatus === b.httpStatus &&
    a.inDoubt === b.inDoubt &&
    a.reason === b.reason
  );
}

/** A row of `delivery_groups`, but for what its devices have in common. */
export interface PositionRow {
  /** Of the first device. */
  firstPosition: number;
  /** A `0` or `1` for each position from the first to the last device. */
  positions: string;
  /** Those of the devices, with a space between them and nothing for none; null: none has one. */
  providerMessageIds: string | null;
}

/** A longer gap between two devices would take more bytes than another row. */
const maxGap = 1_000;

/** The rows of a group: one, where its devices are not far apart. */
export function positionRows({ positions, providerMessageIds }: DeliveryGroup): PositionRow[] {
  const inOrder = positions.map((_, i) => i).sort((a, b) => positions[a]! - positions[b]!);
  const rows: PositionRow[] = [];
  for (let from = 0, to = 1; from < inOrder.length; from = to, to += 1) {
    while (to < inOrder.length && positions[inOrder[to]!]! - positions[inOrder[to - 1]!]! <= maxGap) to += 1;
    const members = inOrder.slice(from, to);
    const firstPosition = positions[members[0]!]!;
    const bits = Buffer.alloc(positions[members.at(-1)!]! - firstPosition + 1, '0');
    for (const i of members) bits[positions[i]! - firstPosition] = one;
    // One with a space could not be told from two.
    const ids = members.map((i) => (providerMessageIds[i]?.includes(' ') ? undefined : providerMessageIds[i]));
    rows.push({
      firstPosition,
      positions: bits.toString('latin1'),
      providerMessageIds: ids.some((id) => id !== undefined) ? ids.join(' ') : null,
    });
  }
  return rows;
}

const one = '1'.charCodeAt(0);

/** Whether the device at this position of the batch is in the group of this alias. */
export function isOfGroup(group: string, position: RawBuilder<unknown>): RawBuilder<SqlBool> {
  const column = (name: string) => sql.ref(`${group}.${name}`);
  return sql`(
    ${column('first_position')} <= ${position} and ${position} < ${column('first_position')} + length(${column('positions')})
    and get_bit(${column('positions')}, ${position} - ${column('first_position')}) = 1
  )`;
}
