/** The chart of a cluster, and whether it can be applied to what is there. */
import { parseAllDocuments } from 'yaml';
import type { ChartRef } from '../src/clients/helm.ts';
import type { Config } from '../src/config.ts';
import { chartValues } from '../src/domain/chart-values.ts';
import type { ClusterSpec } from '../src/domain/cluster.ts';
import { FleetError } from '../src/domain/errors.ts';
import { namespaceOf, RELEASE_NAME, type ClusterRef } from '../src/domain/naming.ts';
import { fixedFieldChanges, type FixedShape } from '../src/domain/stateful-set.ts';
import type { ActivityDeps } from './deps.ts';

export function chartOf(config: Config): ChartRef {
  return {
    chart: config.FLEET_HELM_CHART,
    ...(config.FLEET_HELM_REPOSITORY !== undefined && { repository: config.FLEET_HELM_REPOSITORY }),
    ...(config.FLEET_HELM_CHART_VERSION !== undefined && { version: config.FLEET_HELM_CHART_VERSION }),
  };
}

/**
 * Render the chart, apply nothing, and compare it with the StatefulSet that is there.
 *
 * @throws FleetError `UpdateRefused` naming each field that cannot be changed, `ChartFailed`
 */
export async function refuseFixedFields(
  { clusters, config }: Pick<ActivityDeps, 'clusters' | 'config'>,
  ref: ClusterRef,
  spec: ClusterSpec,
  signal: AbortSignal,
): Promise<void> {
  const namespace = namespaceOf(ref);
  const { helm, kubernetes } = await clusters.of(ref);
  const live = await kubernetes.statefulSetShape(namespace, RELEASE_NAME);
  if (live === undefined) return;
  const chart = chartOf(config);
  const text = await helm.template({ namespace, release: RELEASE_NAME, chart, values: chartValues(ref, spec), signal });
  const rendered = parseAllDocuments(text).map((document) => document.toJS() as RenderedObject | null);
  const wanted = rendered.find((object) => object?.kind === 'StatefulSet' && object.metadata?.name === RELEASE_NAME);
  if (wanted?.spec === undefined) return;
  const changes = fixedFieldChanges(live, wanted.spec);
  if (changes.length === 0) return;
  throw new FleetError(
    'UpdateRefused',
    `The chart ${chart.chart}${chart.version === undefined ? '' : ` ${chart.version}`} would change ${changes.join('; ')} ` +
      `of StatefulSet ${namespace}/${RELEASE_NAME}, which Kubernetes does not allow. Nothing was changed. Use the chart that the ` +
      'cluster was made with (FLEET_HELM_CHART, FLEET_HELM_CHART_VERSION), or restore a backup into a new cluster.',
  );
}

interface RenderedObject {
  readonly kind?: string;
  readonly metadata?: { readonly name?: string };
  readonly spec?: FixedShape;
}
