/** The fleet's search attributes as typed keys, for whoever starts a workflow and for the workflows themselves. */
import { defineSearchAttributeKey, type SearchAttributePair } from '@temporalio/common';

// The names are those of `src/domain/search-attributes.ts`, which the local stack registers; a test compares the two.
export const FLEET_TENANT = defineSearchAttributeKey('FleetTenant', 'KEYWORD');
export const FLEET_CLUSTER = defineSearchAttributeKey('FleetCluster', 'KEYWORD');
/** An operation kind: `provision`, `backup`, ... */
export const FLEET_OPERATION = defineSearchAttributeKey('FleetOperation', 'KEYWORD');
/** The running step, upserted by the workflow as it goes. */
export const FLEET_PHASE = defineSearchAttributeKey('FleetPhase', 'KEYWORD');

/** What every workflow of the fleet carries from its start. */
export function startAttributes(of: { tenant: string; cluster: string; kind: string }): SearchAttributePair[] {
  return [
    { key: FLEET_TENANT, value: of.tenant },
    { key: FLEET_CLUSTER, value: of.cluster },
    { key: FLEET_OPERATION, value: of.kind },
  ];
}

/** Set by Temporal on a workflow that a schedule started: the slot, not the moment it ran. */
export const SCHEDULED_START_TIME = defineSearchAttributeKey('TemporalScheduledStartTime', 'DATETIME');
