/**
 * What AWS asks a policy about each call, as the Service Authorization Reference says it: which resources an action is
 * about, and which condition keys it brings. Learns tags from the calls that make things.
 */
import { PERMISSIONS } from '../../src/clients/aws/errors.ts';
import type { Tags } from '../../src/domain/aws-names.ts';
import type { Answer, AwsCall } from '../../src/local/aws/proxy/call.ts';
import { createdId } from '../../src/local/aws/proxy/resources.ts';
import type { Access } from './iam.ts';

const REGION = 'us-east-1';
const ACCOUNT = '000000000000';

/** Parameters of EC2 that name a resource, and its kind in an ARN. */
const EC2_PARAMETERS: Readonly<Record<string, string>> = {
  VpcId: 'vpc',
  SubnetId: 'subnet',
  InternetGatewayId: 'internet-gateway',
  AllocationId: 'elastic-ip',
  NatGatewayId: 'natgateway',
  RouteTableId: 'route-table',
  VpcEndpointId: 'vpc-endpoint',
  LaunchTemplateId: 'launch-template',
  VolumeId: 'volume',
  GroupId: 'security-group',
  NetworkInterfaceId: 'network-interface',
};

/** What EC2's calls make. */
const EC2_MAKES: Readonly<Record<string, string>> = {
  CreateVpc: 'vpc',
  CreateSubnet: 'subnet',
  CreateInternetGateway: 'internet-gateway',
  AllocateAddress: 'elastic-ip',
  CreateNatGateway: 'natgateway',
  CreateRouteTable: 'route-table',
  CreateVpcEndpoint: 'vpc-endpoint',
  CreateLaunchTemplate: 'launch-template',
};

/** What EKS starts machines with, in the caller's name, to see whether a launch template can be used. */
const OF_MACHINES = ['image', 'instance', 'network-interface', 'security-group', 'subnet', 'volume'];

export class Authorization {
  /** By ARN; EC2's by kind and id. */
  readonly #tags = new Map<string, Tags>();
  /** Route table and subnet by their association. */
  readonly #associations = new Map<string, readonly string[]>();
  readonly #paths = new Map<string, string>();
  readonly #boundaries = new Map<string, string>();
  readonly #groups = new Map<string, string>();

  /** The questions about a call; what it made is known afterwards. */
  ask(call: AwsCall, answer: Answer): Access[] {
    const asked = this.#questions(call);
    if (answer.status < 300) this.#learn(call, answer);
    return asked;
  }

  #questions(call: AwsCall): Access[] {
    const { service, operation } = call;
    const name = `${service}:${operation}`;
    const action = PERMISSIONS[name] ?? name;
    switch (service) {
      case 'ec2':
        return this.#ec2(call, action);
      case 'eks':
        return this.#eks(call, action);
      case 'iam':
        return this.#iam(call, action);
      case 's3':
        return this.#s3(call, action);
      case 'autoscaling': {
        const group = String(call.params['AutoScalingGroupName']);
        const context = { 'aws:ResourceTag/eks:cluster-name': this.#groups.get(group) ?? '' };
        const id = `autoScalingGroup:00000000-0000-0000-0000-000000000000:autoScalingGroupName/${group}`;
        return [{ action, resource: arn('autoscaling', id), context }];
      }
      default:
        return [{ action, resource: '*', context: {} }];
    }
  }

  #ec2({ operation, params }: AwsCall, action: string): Access[] {
    if (operation.startsWith('Describe')) return [{ action, resource: '*', context: {} }];
    const used = this.#used(params);
    const questions = used.map((resource): Access => ({ action, resource, context: this.#resourceTags(resource) }));
    const made = EC2_MAKES[operation];
    if (made === undefined) return questions;
    const context = requestTags(ec2Tags(params));
    const resource = arn('ec2', `${made}/*`);
    return [
      ...questions,
      { action, resource, context },
      { action: 'ec2:CreateTags', resource, context: { ...context, 'ec2:CreateAction': operation } },
    ];
  }

  /** ARNs of what EC2's parameters name. */
  #used(params: AwsCall['params']): string[] {
    return Object.entries(params).flatMap(([name, value]) => {
      if (name === 'AssociationId') return [...(this.#associations.get(String(value)) ?? [])];
      const kind = EC2_PARAMETERS[name.replace(/\.\d+$/, '')];
      return kind === undefined ? [] : [arn('ec2', `${kind}/${String(value)}`)];
    });
  }

  #eks({ operation, params }: AwsCall, action: string): Access[] {
    const { name } = params as { name?: string };
    if (name === undefined || operation === 'DescribeClusterVersions') return [{ action, resource: '*', context: {} }];
    const cluster = arn('eks', `cluster/${name}`);
    const inner = innerArn(params);
    const on = (resource: string): Access => ({ action, resource, context: this.#resourceTags(resource) });
    if (!operation.startsWith('Create')) {
      if (operation === 'DescribeUpdate') return [on(cluster), on(inner ?? cluster)];
      return [on(operation.startsWith('List') ? cluster : (inner ?? cluster))];
    }
    const tags = requestTags(params['tags'] as Tags | undefined);
    // EKS lists no resource for CreateCluster.
    const where = operation === 'CreateCluster' ? '*' : cluster;
    const made = inner ?? (operation === 'CreateCluster' ? cluster : arn('eks', `podidentityassociation/${name}/*`));
    return [
      { action, resource: where, context: { ...tags, ...(where === '*' ? {} : this.#resourceTags(cluster)) } },
      { action: 'eks:TagResource', resource: made, context: tags },
      ...this.#passed(operation, params),
      ...linkedRole(operation),
      ...(operation === 'CreateNodegroup' ? this.#machines(params) : []),
    ];
  }

  #passed(operation: string, params: AwsCall['params']): Access[] {
    const bound = (params['podIdentityAssociations'] ?? []) as { roleArn: string }[];
    const roles: [unknown, string][] = [
      [params['nodeRole'], 'ec2.amazonaws.com'],
      [params['roleArn'], operation === 'CreateCluster' ? 'eks.amazonaws.com' : 'pods.eks.amazonaws.com'],
      ...bound.map(({ roleArn }): [unknown, string] => [roleArn, 'pods.eks.amazonaws.com']),
    ];
    return roles.flatMap(([role, service]) =>
      typeof role === 'string'
        ? [{ action: 'iam:PassRole', resource: role, context: { 'iam:PassedToService': service } }]
        : [],
    );
  }

  #machines(params: AwsCall['params']): Access[] {
    const { id } = params['launchTemplate'] as { id: string };
    const template = arn('ec2', `launch-template/${id}`);
    const context = { 'ec2:LaunchTemplate': template };
    const action = 'ec2:RunInstances';
    return [
      { action, resource: template, context: { ...context, ...this.#resourceTags(template) } },
      ...OF_MACHINES.map((kind) => ({ action, resource: arn('ec2', `${kind}/*`), context })),
      ...['instance', 'volume'].map((kind) => ({
        action: 'ec2:CreateTags',
        resource: arn('ec2', `${kind}/*`),
        context: { 'ec2:CreateAction': 'RunInstances' },
      })),
    ];
  }

  #iam({ operation, params }: AwsCall, action: string): Access[] {
    if (operation === 'ListRoles') return [{ action, resource: '*', context: {} }];
    const role = String(params['RoleName']);
    // One that is not there has no path, and the question is then about no ARN at all.
    const path = operation === 'CreateRole' ? String(params['Path']) : this.#paths.get(role);
    if (path === undefined) return [{ action, resource: `role ${role}`, context: {} }];
    const resource = `arn:aws:iam::${ACCOUNT}:role${path}${role}`;
    const { PolicyArn: policy } = params as { PolicyArn?: string };
    const tags = operation === 'CreateRole' ? requestTags(iamTags(params)) : {};
    const context = { ...this.#resourceTags(resource), ...tags };
    const boundary = operation === 'CreateRole' ? params['PermissionsBoundary'] : this.#boundaries.get(role);
    const bounded = typeof boundary === 'string' ? { 'iam:PermissionsBoundary': boundary } : {};
    return [
      {
        action,
        resource,
        context: { ...context, ...bounded, ...(policy !== undefined && { 'iam:PolicyARN': policy }) },
      },
      ...(operation === 'CreateRole' ? [{ action: 'iam:TagRole', resource, context }] : []),
    ];
  }

  #s3({ operation, resource = '', request }: AwsCall, action: string): Access[] {
    const actions = [action];
    if (operation === 'CreateBucket') {
      const { headers } = request;
      if (headers['x-amz-object-ownership'] !== undefined) actions.push('s3:PutBucketOwnershipControls');
      if (headers['x-amz-bucket-object-lock-enabled'] !== undefined) {
        actions.push('s3:PutBucketObjectLockConfiguration', 's3:PutBucketVersioning');
      }
    }
    return actions.map((each) => ({ action: each, resource: `arn:aws:s3:::${resource}`, context: {} }));
  }

  #learn(call: AwsCall, answer: Answer): void {
    const { service, operation, params } = call;
    if (service === 'ec2') {
      const made = EC2_MAKES[operation];
      if (made !== undefined) this.#tags.set(arn('ec2', `${made}/${createdId(call, answer)}`), ec2Tags(params));
      const [, association] = /<associationId>([^<]+)</.exec(answer.body) ?? [];
      if (operation === 'AssociateRouteTable' && association !== undefined) {
        this.#associations.set(association, this.#used(params));
      }
    } else if (service === 'eks' && operation.startsWith('Create')) {
      const { association } = JSON.parse(answer.body) as { association?: { associationId?: string } };
      const made = innerArn({ ...params, ...association }) ?? arn('eks', `cluster/${String(params['name'])}`);
      this.#tags.set(made, (params['tags'] ?? {}) as Tags);
    } else if (operation === 'DescribeNodegroup') {
      const { nodegroup } = JSON.parse(answer.body) as {
        nodegroup: { resources?: { autoScalingGroups?: { name: string }[] } };
      };
      for (const { name } of nodegroup.resources?.autoScalingGroups ?? []) {
        this.#groups.set(name, String(params['name']));
      }
    } else if (operation === 'CreateRole') {
      const role = String(params['RoleName']);
      this.#paths.set(role, String(params['Path']));
      if (typeof params['PermissionsBoundary'] === 'string') this.#boundaries.set(role, params['PermissionsBoundary']);
      this.#tags.set(`arn:aws:iam::${ACCOUNT}:role${String(params['Path'])}${role}`, iamTags(params));
    } else if (operation === 'DeleteRole') this.#paths.delete(String(params['RoleName']));
  }

  #resourceTags(resource: string): Record<string, string> {
    return prefixed('aws:ResourceTag/', this.#tags.get(resource) ?? {});
  }
}

/** The same, asked about something that is like it in all but whose it is. */
export function ofSomebodyElse({ action, resource, context }: Access): Access {
  const foreign = Object.entries(context).map(([key, value]) => {
    const tag = /^aws:(?:Resource|Request)Tag\/(?:managed-by|eks:cluster-name)$/.test(key);
    return [key, tag ? 'somebody-else' : value] as const;
  });
  // Roles and buckets are known by their names.
  const named = /^arn:aws:(?:iam|s3):/.test(resource) || resource.startsWith('role ');
  return {
    action,
    resource: named ? resource.replace('/qdrant-fleet/', '/').replace(':::fleet-', ':::somebodys-') : resource,
    context: Object.fromEntries(foreign),
  };
}

/** The role of EKS' own that the first cluster, or node group, of an account has made. */
function linkedRole(operation: string): Access[] {
  const [service, role] =
    { CreateCluster: ['eks', 'AmazonEKS'], CreateNodegroup: ['eks-nodegroup', 'AmazonEKSNodegroup'] }[operation] ?? [];
  if (service === undefined) return [];
  const name = `${service}.amazonaws.com`;
  const resource = `arn:aws:iam::${ACCOUNT}:role/aws-service-role/${name}/AWSServiceRoleFor${role}`;
  return [{ action: 'iam:CreateServiceLinkedRole', resource, context: { 'iam:AWSServiceName': name } }];
}

/** ARN of what is in a cluster, where the parameters name it. */
function innerArn(params: AwsCall['params']): string | undefined {
  const { name, nodegroupName, addonName, principalArn, associationId } = params;
  const within = (kind: string, rest: string) => arn('eks', `${kind}/${String(name)}/${rest}`);
  if (typeof nodegroupName === 'string') return within('nodegroup', `${nodegroupName}/a1b2`);
  if (typeof addonName === 'string') return within('addon', `${addonName}/a1b2`);
  if (typeof associationId === 'string') return within('podidentityassociation', associationId);
  if (typeof principalArn !== 'string') return undefined;
  return within('access-entry', `role/${ACCOUNT}/${principalArn.split('/').at(-1)}/a1b2`);
}

function arn(service: string, resource: string): string {
  return `arn:aws:${service}:${REGION}:${ACCOUNT}:${resource}`;
}

function requestTags(tags: Tags = {}): Record<string, string> {
  return prefixed('aws:RequestTag/', tags);
}

function prefixed(prefix: string, tags: Tags): Record<string, string> {
  return Object.fromEntries(Object.entries(tags).map(([key, value]) => [prefix + key, value]));
}

/** Tags in the query form of EC2: `TagSpecification.1.Tag.2.Key`. */
function ec2Tags(params: AwsCall['params']): Tags {
  return numbered(params, /^TagSpecification\.1\.Tag\.(\d+)\.Key$/, (n) => `TagSpecification.1.Tag.${n}.Value`);
}

/** Tags in the query form of IAM: `Tags.member.2.Key`. */
function iamTags(params: AwsCall['params']): Tags {
  return numbered(params, /^Tags\.member\.(\d+)\.Key$/, (n) => `Tags.member.${n}.Value`);
}

function numbered(params: AwsCall['params'], key: RegExp, valueOf: (n: string) => string): Tags {
  const tags = Object.entries(params).flatMap(([name, value]) => {
    const [, n] = key.exec(name) ?? [];
    return n === undefined ? [] : [[String(value), String(params[valueOf(n)])] as const];
  });
  return Object.fromEntries(tags);
}
