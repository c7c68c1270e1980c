/** From where the Kubernetes API of an EKS cluster is reachable, and that the worker is not locked out of it. */
import type { AwsSpec } from './aws.ts';
import { SIZES } from './input/limits.ts';
import { invalidInput } from './input/reader.ts';

/** How the workers reach the API of an EKS cluster. */
export interface WorkerPlace {
  /** Public addresses that they come from. */
  readonly cidrs: readonly string[];
  /** VPCs whose private endpoints they reach. */
  readonly vpcIds: readonly string[];
}

/** As EKS is told. */
export interface EndpointAccess {
  readonly public: boolean;
  readonly publicCidrs: readonly string[];
}

const EVERYWHERE = '0.0.0.0/0';

/**
 * The private endpoint is always on. The public one is on where somebody names addresses, and for those only: the
 * request, or the operator for the workers.
 *
 * @throws FleetError `InvalidInput` where the worker could not reach the cluster that it makes
 */
export function planEndpoint(spec: Pick<AwsSpec, 'vpcId' | 'endpointAccess'>, workers: WorkerPlace): EndpointAccess {
  const { public: asked, publicCidrs } = spec.endpointAccess;
  const isInside = spec.vpcId !== undefined && workers.vpcIds.includes(spec.vpcId);
  const isPublic = asked ?? (publicCidrs.length > 0 || (!isInside && workers.cidrs.length > 0));
  if (!isPublic) {
    if (isInside) return { public: false, publicCidrs: [] };
    throw locked(
      'endpointAccess',
      `would leave only the private endpoint, which the workers do not reach${spec.vpcId === undefined ? ' in a VPC that is made' : ''}`,
      spec.vpcId === undefined
        ? 'FLEET_AWS_WORKER_CIDRS to the addresses that the workers come from'
        : `FLEET_AWS_WORKER_VPCS so that it lists "${spec.vpcId}", if they do`,
    );
  }
  const cidrs = [...new Set([...publicCidrs, ...workers.cidrs])];
  if (!isInside && workers.cidrs.length === 0 && !cidrs.includes(EVERYWHERE)) {
    throw locked(
      'endpointAccess.publicCidrs',
      'may leave the workers out, since nothing says where they come from',
      'FLEET_AWS_WORKER_CIDRS to the addresses that the workers come from',
    );
  }
  if (cidrs.length === 0) throw invalid('endpointAccess.publicCidrs', 'is needed with "public": true');
  if (cidrs.length > SIZES.publicCidrs) {
    throw invalid(
      'endpointAccess.publicCidrs',
      `must be ${SIZES.publicCidrs} at most, together with those of the workers`,
    );
  }
  return { public: true, publicCidrs: cidrs };
}

function locked(field: string, problem: string, setting: string) {
  return invalid(field, `${problem}. The operator of the fleet sets ${setting}`);
}

function invalid(field: string, detail: string) {
  return invalidInput({ fields: [{ field: `aws.${field}`, detail }] });
}
