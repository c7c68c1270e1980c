/** What is going to be made on AWS, decided once and kept in the workflow's history. */
import type { AwsSpec } from './aws.ts';
import type { ZoneBlocks } from './cidr.ts';

export interface ZonePlan extends ZoneBlocks {
  /** Availability zone, such as `eu-west-1a`. */
  readonly name: string;
}

export interface AwsPlan {
  readonly spec: AwsSpec;
  readonly region: string;
  /** `aws`, `aws-cn` or `aws-us-gov`. */
  readonly partition: string;
  readonly account: string;
  /** Where the network gets subnets; empty where a VPC is given. */
  readonly zones: readonly ZonePlan[];
  /** What could not be asked beforehand, because the worker may not ask it. */
  readonly unchecked: readonly string[];
}

/** The network as the rooms after it need it. */
export interface NetworkIds {
  readonly vpcId: string;
  readonly publicSubnetIds: readonly string[];
  readonly privateSubnetIds: readonly string[];
  readonly natGatewayIds: readonly string[];
}
