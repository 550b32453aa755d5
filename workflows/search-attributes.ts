import { defineSearchAttributeKey, type SearchAttributeUpdatePair } from '@temporalio/common';
import { upsertSearchAttributes, workflowInfo } from '@temporalio/workflow';
import type { WorkflowView } from '../activities/activities.ts';
import { type SearchAttribute, searchAttributeTypes } from '../domain/search-attributes.ts';
import { shorten } from './details.ts';

type Values = { [Name in SearchAttribute]?: string | number | null };

/** What a send is found by, where the worker that read the view knew that Temporal has the attributes. */
export function showInList(view: WorkflowView, { audience, isPlanned, outcomes } = view.books): void {
  if (view.search === undefined) return;
  setSearchAttributes({
    CarillonState: view.state,
    CarillonTitle: view.title && shorten(view.title),
    CarillonApp: view.search.app,
    CarillonAudience: isPlanned || audience > 0 ? audience : null,
    CarillonAccepted: outcomes.accepted,
    CarillonHaltReason: view.search.haltReason,
  });
}

/** A workflow that is shown, and ends without another look. */
export function showLastState(state: WorkflowView['state']): void {
  const { searchAttributes } = workflowInfo();
  if ('CarillonState' in searchAttributes) setSearchAttributes({ CarillonState: state, CarillonHaltReason: null });
}

/** One event in the history, and none where nothing has changed. Null: it is taken away. */
export function setSearchAttributes(values: Values): void {
  const { typedSearchAttributes } = workflowInfo();
  const changed: SearchAttributeUpdatePair[] = [];
  for (const [name, value] of Object.entries(values) as [SearchAttribute, string | number | null][]) {
    const type = searchAttributeTypes[name] === 'Int' ? ('INT' as const) : ('KEYWORD' as const);
    const key = defineSearchAttributeKey(name, type);
    if ((typedSearchAttributes.get(key) ?? null) !== value) changed.push({ key, value } as SearchAttributeUpdatePair);
  }
  if (changed.length > 0) upsertSearchAttributes(changed);
}
