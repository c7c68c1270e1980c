/** Which resource a create is about, and how its describes hide one. */
import type { Answer, AwsCall } from './call.ts';

export interface Creation {
  /** Element of the answer that holds its id or name. */
  readonly id: string;
  /** Operations that show it. */
  readonly shownBy: readonly string[];
  /** Error of a describe by an id that is not there. */
  readonly notFound: string;
}

/** Creates of the query protocol whose ids are given by AWS, and those of IAM, whose names are the caller's. */
export const CREATIONS: Readonly<Record<string, Creation>> = {
  CreateVpc: { id: 'vpcId', shownBy: ['DescribeVpcs'], notFound: 'InvalidVpcID.NotFound' },
  CreateSubnet: { id: 'subnetId', shownBy: ['DescribeSubnets'], notFound: 'InvalidSubnetID.NotFound' },
  CreateInternetGateway: {
    id: 'internetGatewayId',
    shownBy: ['DescribeInternetGateways'],
    notFound: 'InvalidInternetGatewayID.NotFound',
  },
  AllocateAddress: { id: 'allocationId', shownBy: ['DescribeAddresses'], notFound: 'InvalidAllocationID.NotFound' },
  CreateNatGateway: { id: 'natGatewayId', shownBy: ['DescribeNatGateways'], notFound: 'NatGatewayNotFound' },
  CreateRouteTable: {
    id: 'routeTableId',
    shownBy: ['DescribeRouteTables'],
    notFound: 'InvalidRouteTableID.NotFound',
  },
  CreateSecurityGroup: { id: 'groupId', shownBy: ['DescribeSecurityGroups'], notFound: 'InvalidGroup.NotFound' },
  CreateVpcEndpoint: {
    id: 'vpcEndpointId',
    shownBy: ['DescribeVpcEndpoints'],
    notFound: 'InvalidVpcEndpointId.NotFound',
  },
  CreateLaunchTemplate: {
    id: 'launchTemplateId',
    shownBy: ['DescribeLaunchTemplates'],
    notFound: 'InvalidLaunchTemplateId.NotFound',
  },
  CreateRole: { id: 'RoleName', shownBy: ['GetRole', 'ListRoles'], notFound: 'NoSuchEntity' },
  CreatePolicy: { id: 'Arn', shownBy: ['GetPolicy', 'ListPolicies'], notFound: 'NoSuchEntity' },
};

/** The id of what a create has made. */
export function createdId(call: AwsCall, answer: Answer): string | undefined {
  const creation = CREATIONS[call.operation];
  if (creation === undefined || answer.status >= 300) return undefined;
  return new RegExp(`<${creation.id}>([^<]+)<`).exec(answer.body)?.[1];
}

/** For the log: what a call was about, where only its answer tells. */
export function resultResource(call: AwsCall, answer: Answer): string | undefined {
  return createdId(call, answer);
}
