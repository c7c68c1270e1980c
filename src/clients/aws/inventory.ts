/** What an account has that carries given tags, kind by kind. */
import type { Filter, Tag } from '@aws-sdk/client-ec2';
import { AWS_TAGS, carries, type Tags } from '../../domain/aws-names.ts';
import type { Aws } from './clients.ts';

/** EC2's resources that a cluster has, by their names in `TagSpecifications`. */
export const EC2_KINDS = [
  'vpc',
  'subnet',
  'internet-gateway',
  'elastic-ip',
  'natgateway',
  'route-table',
  'vpc-endpoint',
  'launch-template',
  'volume',
] as const;
export type Ec2Kind = (typeof EC2_KINDS)[number];

/** A resource that was found. */
export interface Found {
  readonly kind: string;
  readonly id: string;
  readonly tags: Tags;
  readonly slot?: string;
}

/**
 * Resources of EC2 that carry all the tags and have not been deleted. The tags of what comes back are compared again:
 * everything that is adopted or removed goes through here, and a filter that is not applied must not decide about it.
 */
export async function findEc2(aws: Aws, kind: Ec2Kind, tags: Tags): Promise<Found[]> {
  return (await listEc2(aws, kind, tags)).filter((found) => carries(found.tags, tags));
}

async function listEc2({ ec2 }: Aws, kind: Ec2Kind, tags: Tags): Promise<Found[]> {
  const Filters = tagFilters(tags);
  switch (kind) {
    case 'vpc':
      return paged(async (NextToken) => {
        const { Vpcs, NextToken: next } = await ec2.describeVpcs({ Filters, ...NextToken });
        return [found(kind, Vpcs, 'VpcId'), next];
      });
    case 'subnet':
      return paged(async (NextToken) => {
        const { Subnets, NextToken: next } = await ec2.describeSubnets({ Filters, ...NextToken });
        return [found(kind, Subnets, 'SubnetId'), next];
      });
    case 'internet-gateway':
      return paged(async (NextToken) => {
        const { InternetGateways, NextToken: next } = await ec2.describeInternetGateways({ Filters, ...NextToken });
        return [found(kind, InternetGateways, 'InternetGatewayId'), next];
      });
    case 'elastic-ip':
      return found(kind, (await ec2.describeAddresses({ Filters })).Addresses, 'AllocationId');
    case 'natgateway':
      return paged(async (NextToken) => {
        const { NatGateways, NextToken: next } = await ec2.describeNatGateways({ Filter: Filters, ...NextToken });
        return [
          found(
            kind,
            NatGateways?.filter(({ State }) => State !== 'deleted'),
            'NatGatewayId',
          ),
          next,
        ];
      });
    case 'route-table':
      return paged(async (NextToken) => {
        const { RouteTables, NextToken: next } = await ec2.describeRouteTables({ Filters, ...NextToken });
        return [found(kind, RouteTables, 'RouteTableId'), next];
      });
    case 'vpc-endpoint':
      return paged(async (NextToken) => {
        const { VpcEndpoints, NextToken: next } = await ec2.describeVpcEndpoints({ Filters, ...NextToken });
        return [
          found(
            kind,
            VpcEndpoints?.filter(({ State }) => !/^deleted$/i.test(State ?? '')),
            'VpcEndpointId',
          ),
          next,
        ];
      });
    case 'launch-template':
      return paged(async (NextToken) => {
        const { LaunchTemplates, NextToken: next } = await ec2.describeLaunchTemplates({ Filters, ...NextToken });
        return [found(kind, LaunchTemplates, 'LaunchTemplateId'), next];
      });
    default:
      return paged(async (NextToken) => {
        const { Volumes, NextToken: next } = await ec2.describeVolumes({ Filters, ...NextToken });
        return [found(kind, Volumes, 'VolumeId'), next];
      });
  }
}

function tagFilters(tags: Tags): Filter[] {
  return Object.entries(tags).map(([key, value]) => ({ Name: `tag:${key}`, Values: [value] }));
}

/** Tags in the form of EC2, IAM and S3. */
export function tagList(tags: Tags): { Key: string; Value: string }[] {
  return Object.entries(tags).map(([Key, Value]) => ({ Key, Value }));
}

export function fromTagList(tags: readonly { Key?: string | undefined; Value?: string | undefined }[] = []): Tags {
  return Object.fromEntries(tags.map(({ Key = '', Value = '' }) => [Key, Value]));
}

/** Every page of a list. @param page gets the token of the page before, as a part of the request */
export async function paged<T>(
  page: (token: { NextToken?: string }) => Promise<[items: T[], next: string | undefined]>,
): Promise<T[]> {
  const all: T[] = [];
  let token: string | undefined;
  do {
    const [items, next] = await page(token === undefined ? {} : { NextToken: token });
    all.push(...items);
    token = next === '' ? undefined : next;
  } while (token !== undefined);
  return all;
}

function found<K extends string>(
  kind: Ec2Kind,
  items: readonly ({ Tags?: Tag[] | undefined } & { [key in K]?: string | undefined })[] | undefined,
  id: K,
): Found[] {
  return (items ?? []).map((item) => {
    const tags = fromTagList(item.Tags);
    const slot = tags[AWS_TAGS.slot];
    return { kind, id: item[id] ?? '', tags, ...(slot !== undefined && { slot }) };
  });
}
