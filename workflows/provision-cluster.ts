import { parseProvisionInput } from '../src/domain/input.ts';
import { outputsOf, type ClusterOutputs } from '../src/domain/kubernetes-objects.ts';
import { supportedProvider } from '../src/domain/provider.ts';
import { control, described, persistent, polled, recorded } from './shared/activity-proxies.ts';
import { AWS_STEPS, provisionAws } from './shared/aws-infrastructure.ts';
import { checked } from './shared/input.ts';
import { runOperation, type Ended } from './shared/operation.ts';

const STEPS = {
  lease: 'Take the lease',
  reserve: 'Reserve the name',
  namespace: 'Create the namespace',
  key: 'Create the API key',
  certificates: 'Issue the certificates',
  surroundings: 'Apply the policies',
  chart: 'Install the chart',
  peers: 'Wait for the peers',
  collections: 'Create the collections',
  register: 'Register the cluster',
} as const;

/** Seconds that cert-manager may take to issue a certificate. */
const ISSUE_SECONDS = 600;
/** Seconds that a namespace may take to go. */
export const REMOVAL_SECONDS = 900;

/**
 * Make a Qdrant cluster: namespace, API key, Helm release, collections. Fails and cancels without leaving anything.
 *
 * Point of no return: all collections are there. The cluster stays from then on, whatever cannot be recorded.
 *
 * Input: `{"tenant":"acme","cluster":"docs","nodes":3}`; see `ProvisionInput` for the rest.
 */
export async function ProvisionCluster(
  input: unknown,
): Promise<Ended<{ tenant: string; cluster: string; qdrantVersion: string } & ClusterOutputs>> {
  const { tenant, cluster, readyTimeoutSeconds = 900, ...request } = checked(input, parseProvisionInput);
  const ref = { tenant, cluster };
  return runOperation(
    { kind: 'provision', ref, steps: Object.values(STEPS).filter((name) => name !== STEPS.certificates) },
    async (operation) => {
      const { saga } = operation;
      if (supportedProvider(request.provider ?? 'kubernetes') === 'aws') {
        operation.insert(Object.values(AWS_STEPS), STEPS.namespace);
      }
      await operation.step(STEPS.lease, () => control.takeLease({ ...ref, mode: 'exclusive' }));

      saga.add(`catalogue entry of ${tenant}/${cluster}`, () => persistent.forgetCluster({ ...ref, onlyOwn: true }));
      const spec = await operation.step(
        STEPS.reserve,
        () => control.reserveCluster({ ...ref, request }),
        ({ nodes, collections }) => `${nodes} nodes, ${collections.length} collections`,
      );

      if (spec.aws !== undefined) await provisionAws(operation, ref, spec.aws);

      saga.add(`namespace of ${tenant}/${cluster}`, () =>
        control.removeNamespace.executeWithOptions(polled(REMOVAL_SECONDS, 'Wait until the namespace is gone'), [
          { ...ref, onlyOwn: true },
        ]),
      );
      await operation.step(STEPS.namespace, () =>
        control.ensureNamespace.executeWithOptions(described(`Namespace for ${tenant}/${cluster}`), [ref]),
      );
      await operation.step(STEPS.key, () => control.ensureApiKey(ref));

      if (spec.tls === true) {
        operation.insert([STEPS.certificates], STEPS.surroundings);
        await operation.step(
          STEPS.certificates,
          () =>
            control.ensureCertificates.executeWithOptions(polled(ISSUE_SECONDS, 'Certificates of the cluster'), [ref]),
          ({ issuedBy, notAfter }) => `by ${issuedBy}, good until ${notAfter.slice(0, 10)}`,
        );
      }

      await operation.step(
        STEPS.surroundings,
        () => control.applySurroundings({ ...ref, spec }),
        ({ objects, access }) => `${objects} objects; ${access}`,
      );

      // Before the namespace goes, so that nothing is restarted while it is being emptied.
      saga.add('volume claims', () => persistent.deleteVolumeClaims(ref));
      saga.add('Helm release', () => persistent.uninstallRelease(ref));
      await operation.step(
        STEPS.chart,
        () =>
          control.installRelease.executeWithOptions(described(`Helm chart, ${spec.nodes} nodes`), [{ ...ref, spec }]),
        ({ revision }) => `revision ${revision}`,
      );

      const { qdrantVersion } = await operation.step(
        STEPS.peers,
        () =>
          control.awaitPeers.executeWithOptions(
            polled(readyTimeoutSeconds, `${spec.nodes} peers up and in consensus`),
            [{ ...ref, nodes: spec.nodes }],
          ),
        (found) => `Qdrant ${found.qdrantVersion}`,
      );

      await operation.step(STEPS.collections, async () => {
        for (const [index, collection] of spec.collections.entries()) {
          const summary = `Collection "${collection.name}", ${collection.vectorSize} dimensions`;
          await control.ensureCollection.executeWithOptions(described(summary), [{ ...ref, spec: collection }]);
          operation.advance(STEPS.collections, index + 1, spec.collections.length, 'collections');
        }
      });

      operation.pointOfNoReturn();
      const waiting = recorded("Set the cluster's phase");
      await operation.afterwards(`${tenant}/${cluster} is ready, and its phase does not say so yet`, () =>
        operation.step(STEPS.register, () =>
          control.setClusterPhase.executeWithOptions(waiting, [{ ...ref, phase: 'HEALTHY' }]),
        ),
      );
      return { ...ref, qdrantVersion, ...outputsOf(ref, spec) };
    },
  );
}
