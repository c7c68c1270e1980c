/**
 * The search attributes that every workflow of the fleet carries, by name and Temporal type.
 * The local stack registers them on its server; elsewhere `temporal operator search-attribute create` does.
 */
export const SEARCH_ATTRIBUTES = {
  FleetTenant: 'Keyword',
  FleetCluster: 'Keyword',
  FleetOperation: 'Keyword',
  FleetPhase: 'Keyword',
} as const;
