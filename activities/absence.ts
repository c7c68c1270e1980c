/** Why pods do not answer: their own words, and what became of their machines and volumes. */
import { FleetError } from '../src/domain/errors.ts';
import { foreignMap } from '../src/domain/input/names.ts';
import { namespaceOf, type ClusterRef } from '../src/domain/naming.ts';
import { whyAbsent, type NodeState } from '../src/domain/pod-absence.ts';
import type { ActivityDeps } from './deps.ts';
import type { Unreachable } from './peers.ts';

/**
 * One text about all of them: of each the machine, the volumes and the remedy where these are what keeps it away, and
 * what it said itself otherwise. Needs the rights to `get` nodes and to `list` persistentvolumes to know that.
 */
export async function tellAbsent(
  deps: Pick<ActivityDeps, 'clusters'>,
  ref: ClusterRef,
  absent: readonly Unreachable[],
): Promise<string> {
  if (absent.length === 0) return 'its pod is not there yet';
  return (await explainAbsent(deps, ref, absent)).map(({ text }) => text).join('; ');
}

/** Of each the text, and whether its machine or the place of its volumes keeps it away. */
export async function explainAbsent(
  { clusters }: Pick<ActivityDeps, 'clusters'>,
  ref: ClusterRef,
  absent: readonly Unreachable[],
): Promise<{ name: string; text: string; homeless: boolean }[]> {
  const namespace = namespaceOf(ref);
  const plain = ({ name, reason, node }: Unreachable) => ({
    name,
    text: `${name}${node === undefined ? '' : ` on node ${node}`}: ${reason}`,
    homeless: false,
  });
  try {
    const { kubernetes } = await clusters.of(ref);
    const found = foreignMap<NodeState>();
    const look = async (name: string) => {
      const state = found[name] ?? (await kubernetes.nodeState(name));
      if (state !== undefined) found[name] = state;
      return state;
    };
    let everyVolume: Awaited<ReturnType<typeof kubernetes.volumePlaces>> | undefined;
    const told: { name: string; text: string; homeless: boolean }[] = [];
    for (const pod of absent) {
      const healthy = pod.node === undefined ? pod.unscheduled === undefined : (await look(pod.node))?.ready === true;
      if (healthy) {
        told.push(plain(pod));
        continue;
      }
      everyVolume ??= await kubernetes.volumePlaces(namespace);
      const volumes = everyVolume.filter(({ claim }) => claim.endsWith(`-${pod.name}`));
      for (const { node } of volumes) if (node !== undefined) await look(node);
      const text = whyAbsent(namespace, pod, found, volumes);
      told.push(text === undefined ? plain(pod) : { name: pod.name, text, homeless: true });
    }
    return told;
  } catch (error) {
    if (!FleetError.is(error)) throw error;
    return absent.map(plain);
  }
}
