/** What goes with a cluster of EKS when it is deleted. ministack keeps it, and shows it in the next one of that name. */
import type { Answer } from './call.ts';
import type { Caller, Upstream } from './upstream.ts';

const CONTENTS = [
  { path: 'addons', member: 'addons' },
  { path: 'access-entries', member: 'accessEntries' },
  { path: 'pod-identity-associations', member: 'associations' },
] as const;

/** Delete a cluster's add-ons, access entries and Pod Identity associations. */
export async function removeContents(upstream: Upstream, caller: Caller, cluster: string): Promise<void> {
  for (const { path, member } of CONTENTS) {
    const at = `/clusters/${encodeURIComponent(cluster)}/${path}`;
    for (const id of idsIn(await upstream.eks(caller, 'GET', at), member)) {
      await upstream.eks(caller, 'DELETE', `${at}/${encodeURIComponent(id)}`);
    }
  }
}

function idsIn({ status, body }: Answer, member: string): string[] {
  if (status >= 300) return [];
  const items = (JSON.parse(body) as Record<string, (string | { associationId: string })[]>)[member] ?? [];
  return items.map((item) => (typeof item === 'string' ? item : item.associationId));
}
