/**
 * What the protocol rests on: conditions of statements, and what a run does for the sake of the books. Each can be switched off, to
 * see what it is for.
 */
export const guardNames = [
  'claimBatch raises the fence',
  'a claim notes its doubts in one transaction',
  'noteDoubts checks the fence',
  'noteDoubts counts fresh devices',
  'noteDoubts counts dispatched deferrals',
  'recorded devices are left out',
  'lockBatch checks the fence',
  'reserve_window reads the state',
  'reserve_window checks the fence',
  'reserve_window moves the horizon',
  'reserve_window moves it forward only',
  'reserve_window marks deferrals as dispatched',
  'deferrals are stored before they are sent to again',
  'the policy is asked before a repeat',
  'the policy is asked after silence',
  'repeats end after maxDoubts',
  'silence is a doubt',
  'record_deliveries checks the fence',
  'deferrals alone check the fence',
  'a finished batch takes no more',
  'a device has one row',
  'is it stored?',
  'the row says in_doubt',
  'storeDeferrals ends the dispatch',
  'an outcome ends the deferral',
  'nothing is dispatched after a stop',
  'a device that stepped aside is deferred',
  'undispatched devices are given back',
  'returnReserved checks the fence',
  'settleBatch checks the fence',
  'settleBatch leaves rows alone',
  'settleBatch doubts what is below the horizon',
  'settleBatch doubts dispatched deferrals',
  'settleBatch keeps doubts',
] as const;
export type Guard = (typeof guardNames)[number];
export type Guards = Record<Guard, boolean>;
