/** The API key's way from one to the next: a second key beside it, then the two change places, then the old one goes. */
import { FleetError } from '../src/domain/errors.ts';
import { API_KEY_SECRET, namespaceOf, type ClusterRef } from '../src/domain/naming.ts';
import type { ActivityDeps } from './deps.ts';
import { newApiKey } from './kubernetes.ts';

/**
 * How far a rotation is, written on the Secret: no key lives anywhere else.
 *
 * - `settled`: one key.
 * - `added`: the old key, and a new one as the second.
 * - `switched`: the new key, and the old one as the second.
 */
const STAGES = ['settled', 'added', 'switched'] as const;
export type KeyStage = (typeof STAGES)[number];

const STAGE = 'qdrant-fleet/key-stage';
const REVISION = 'qdrant-fleet/key-revision';

export function createApiKeyActivities({ clusters }: ActivityDeps) {
  return {
    /**
     * Bring the Secret to a stage: `added`, `switched`, `settled`, in this order. One that is further already is left as
     * it is, so a rotation that was interrupted goes on where it stopped.
     *
     * @returns the Secret's revision, which the pods have to be started with
     */
    async stageApiKey({ stage, ...ref }: ClusterRef & { stage: KeyStage }): Promise<{ revision: number }> {
      const { kubernetes } = await clusters.of(ref);
      const namespace = namespaceOf(ref);
      const { name, key, alternate } = API_KEY_SECRET;
      const secret = await kubernetes.secret(namespace, name);
      const main = secret?.values[key];
      if (secret === undefined || main === undefined) {
        throw new FleetError(
          'QdrantRejected',
          `Secret ${namespace}/${name} with the API key is missing; put it back or delete the cluster.`,
        );
      }
      const at = STAGES.find((known) => known === secret.annotations[STAGE]) ?? 'settled';
      const revision = Number(secret.annotations[REVISION] ?? 0);
      const values = { ...secret.values };
      if (stage === 'added' && at === 'settled') {
        values[alternate] = newApiKey();
      } else if (stage === 'switched' && at === 'added') {
        values[key] = secret.values[alternate] ?? main;
        values[alternate] = main;
      } else if (stage === 'settled' && at === 'switched') {
        delete values[alternate];
      } else {
        return { revision };
      }
      const annotations = { ...secret.annotations, [STAGE]: stage, [REVISION]: String(revision + 1) };
      await kubernetes.replaceSecret(namespace, name, { ...secret, values, annotations });
      return { revision: revision + 1 };
    },
  };
}
