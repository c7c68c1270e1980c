/** What of a StatefulSet can never be changed, and what would change it all the same. Pure. */
import { canonicalJson } from './canonical-json.ts';

/** Those parts of a StatefulSet's specification that Kubernetes keeps as they were made. */
export interface FixedShape {
  readonly serviceName?: string;
  readonly podManagementPolicy?: string;
  readonly selector?: { readonly matchLabels?: Readonly<Record<string, string>> };
  readonly volumeClaimTemplates?: readonly ClaimTemplate[];
}

interface ClaimTemplate {
  readonly metadata?: { readonly name?: string; readonly labels?: Readonly<Record<string, string>> };
  readonly spec?: {
    readonly accessModes?: readonly string[];
    readonly storageClassName?: string;
    readonly volumeMode?: string;
    readonly resources?: { readonly requests?: Readonly<Record<string, string>> };
  };
}

/**
 * The fields that would change, each with what is there and what is wanted.
 *
 * The size of volumes is not among them: a StatefulSet is made anew around its pods when they grow.
 */
export function fixedFieldChanges(live: FixedShape, wanted: FixedShape): string[] {
  const changes: string[] = [];
  const compare = (field: string, before: unknown, after: unknown) => {
    const [was, is] = [canonicalJson(before), canonicalJson(after)];
    if (was !== is) changes.push(`${field} from ${was ?? 'none'} to ${is ?? 'none'}`);
  };
  compare('spec.serviceName', live.serviceName ?? '', wanted.serviceName ?? '');
  const [policy, wantedPolicy] = [live.podManagementPolicy, wanted.podManagementPolicy];
  compare('spec.podManagementPolicy', policy ?? 'OrderedReady', wantedPolicy ?? 'OrderedReady');
  compare('spec.selector.matchLabels', live.selector?.matchLabels ?? {}, wanted.selector?.matchLabels ?? {});
  const before = byName(live.volumeClaimTemplates);
  const after = byName(wanted.volumeClaimTemplates);
  for (const name of new Set([...before.keys(), ...after.keys()])) {
    const field = `spec.volumeClaimTemplates[${name}]`;
    const [was, is] = [before.get(name), after.get(name)];
    if (was === undefined || is === undefined) {
      changes.push(`${field}, which would be ${was === undefined ? 'new' : 'gone'}`);
      continue;
    }
    compare(`${field}.metadata.labels`, was.metadata?.labels ?? {}, is.metadata?.labels ?? {});
    compare(`${field}.spec.accessModes`, was.spec?.accessModes ?? [], is.spec?.accessModes ?? []);
    compare(`${field}.spec.storageClassName`, was.spec?.storageClassName, is.spec?.storageClassName);
    compare(`${field}.spec.volumeMode`, was.spec?.volumeMode ?? 'Filesystem', is.spec?.volumeMode ?? 'Filesystem');
  }
  return changes;
}

function byName(templates: readonly ClaimTemplate[] = []): Map<string, ClaimTemplate> {
  return new Map(templates.map((template) => [template.metadata?.name ?? '', template]));
}
