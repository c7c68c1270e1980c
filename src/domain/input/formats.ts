/**
 * How texts are written, once: the guards check by these, and the OpenAPI document shows the same patterns. Patterns
 * name their characters (`[0-9]`, not `\d`), so that every language reads them alike, and none of them backtracks.
 */
import { KUBERNETES_VERSION } from '../aws.ts';
import { NAME } from '../naming.ts';
import { TEXTS } from './limits.ts';
import { NOT_RESERVED } from './names.ts';

export interface Format {
  readonly pattern: RegExp;
  /** Characters (code points). */
  readonly maxLength: number;
  /** What a text that does not match is told: `must be …`. */
  readonly problem: string;
  readonly example?: string;
}

/** Why `text` is not written like `format`, or `undefined` when it is. */
export function formatProblem({ pattern, maxLength, problem }: Format, text: string): string | undefined {
  if (text.length === 0 && !pattern.test('')) return `must not be empty; it ${problem}`;
  const length = text.length > maxLength ? lengthOf(text) : text.length;
  if (length > maxLength) return `must have at most ${maxLength} characters, has ${length}`;
  return pattern.test(text) ? undefined : problem;
}

/** Code points, as JSON Schema counts them. */
function lengthOf(text: string): number {
  let length = 0;
  for (const _ of text) length += 1;
  return length;
}

const OCTET = '(?:25[0-5]|2[0-4][0-9]|1[0-9]{2}|[1-9]?[0-9])';
const V4 = `${OCTET}(?:\\.${OCTET}){3}/(?:3[0-2]|[12]?[0-9])`;
const H = '[0-9A-Fa-f]{1,4}';
/** Every place where `::` may stand: `1::8` has one to six groups before it, and the rest after it. */
const V6_ADDRESS = [
  `(?:${H}:){7}${H}`,
  ...[1, 2, 3, 4, 5, 6].map((before) => `(?:${H}:){${before}}(?::${H}){1,${7 - before}}`),
  `(?:${H}:){1,7}:`,
  `:(?::${H}){1,7}`,
  '::',
].join('|');
const V6 = `(?:${V6_ADDRESS})/(?:12[0-8]|1[01][0-9]|[1-9]?[0-9])`;

const DNS_LABEL = '[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?';
const LABEL_NAME = '[A-Za-z0-9](?:[A-Za-z0-9_.-]{0,61}[A-Za-z0-9])?';
const IAM_PATH = '[A-Za-z0-9_+=,.@/-]+';
const ACCOUNT = 'arn:aws[a-z-]*:iam::[0-9]{12}:';

export const FORMATS = {
  cluster: {
    pattern: NAME,
    maxLength: TEXTS.cluster,
    problem:
      'must be lower-case letters, digits and single hyphens, starting with a letter and not ending with a hyphen',
    example: 'docs',
  },
  schedule: {
    pattern: NAME,
    maxLength: TEXTS.schedule,
    problem:
      'must be lower-case letters, digits and single hyphens, starting with a letter and not ending with a hyphen',
    example: 'backup',
  },
  backup: {
    pattern: /^[0-9]{8}T[0-9]{6}Z-[0-9a-f]{8}$/,
    maxLength: 25,
    problem: 'must be a backup id such as "20261121T030000Z-1a2b3c4d"',
    example: '20261121T030000Z-1a2b3c4d',
  },
  /** As Qdrant 1.18 has it: lib/common/common/src/validation.rs. */
  collection: {
    // oxlint-disable-next-line no-control-regex -- these two control characters are what Qdrant refuses
    pattern: /^[^<>:"/\\|?*\u0000\u001F]+$/,
    maxLength: TEXTS.collection,
    problem: 'must not contain any of < > : " / \\ | ? * or NUL',
    example: 'documents',
  },
  /** A collection's name as the key of a map. */
  collectionKey: {
    // oxlint-disable-next-line no-control-regex -- as above
    pattern: new RegExp(`^${NOT_RESERVED}[^<>:"/\\\\|?*\\u0000\\u001F]+$`),
    maxLength: TEXTS.collection,
    problem: 'must not contain any of < > : " / \\ | ? * or NUL',
  },
  preset: {
    pattern: new RegExp(`^${NOT_RESERVED}[A-Za-z0-9_][A-Za-z0-9_.-]*$`),
    maxLength: TEXTS.preset,
    problem: 'must be letters, digits, "_", "-" and "."',
    example: 'documents',
  },
  imageTag: {
    pattern: /^[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}$/,
    maxLength: 128,
    problem: 'must be an image tag such as "v1.18.3"',
    example: 'v1.18.3',
  },
  storage: {
    pattern: /^[1-9][0-9]{0,8}(?:Ki|Mi|Gi|Ti|k|M|G|T)?$/,
    maxLength: 11,
    problem: 'must be a Kubernetes quantity such as "10Gi"',
    example: '10Gi',
  },
  memory: {
    pattern: /^[1-9][0-9]{0,8}(?:Ki|Mi|Gi|Ti|k|M|G|T)?$/,
    maxLength: 11,
    problem: 'must be a quantity such as "4Gi"',
    example: '4Gi',
  },
  cpu: {
    pattern: /^(?:[1-9][0-9]{0,5}m?|0?\.[0-9]{1,3})$/,
    maxLength: 7,
    problem: 'must be a CPU quantity such as "500m" or "2"',
    example: '500m',
  },
  namespace: {
    pattern: new RegExp(`^${DNS_LABEL}$`),
    maxLength: 63,
    problem: 'must be the name of a Kubernetes namespace',
    example: 'search',
  },
  /** IPv4 or IPv6. */
  cidr: {
    pattern: new RegExp(`^(?:${V4}|${V6})$`),
    maxLength: 43,
    problem: 'must be a network such as "10.20.0.0/16"',
    example: '10.20.0.0/16',
  },
  labelKey: {
    pattern: new RegExp(`^${NOT_RESERVED}(?:${DNS_LABEL}(?:\\.${DNS_LABEL})*/)?${LABEL_NAME}$`),
    maxLength: 253,
    problem: 'must be the key of a Kubernetes label, such as "disk" or "example.com/disk"',
    example: 'disk',
  },
  labelValue: {
    pattern: new RegExp(`^(?:${LABEL_NAME})?$`),
    maxLength: 63,
    problem: 'must be the value of a Kubernetes label, such as "nvme"',
    example: 'nvme',
  },
  /** Id of a workflow; ours hold names, hyphens and times, and those of child workflows a slash. */
  operation: {
    pattern: /^[!-~]+$/,
    maxLength: TEXTS.operation,
    problem: 'must be visible ASCII characters',
  },
  idempotencyKey: {
    pattern: /^[!-~]+$/,
    maxLength: TEXTS.idempotencyKey,
    problem: 'must be 1 to 255 visible ASCII characters',
  },
  vpcId: {
    pattern: /^vpc-[0-9a-f]{8,17}$/,
    maxLength: 21,
    problem: 'must be the id of a VPC, such as "vpc-0a1b2c3d4e5f60718"',
  },
  subnetId: {
    pattern: /^subnet-[0-9a-f]{8,17}$/,
    maxLength: 24,
    problem: 'must be ids of subnets, such as "subnet-0a1b2c3d4e5f60718"',
  },
  /** Of AWS: IPv4 only. */
  block: {
    pattern: new RegExp(`^${V4}$`),
    maxLength: 18,
    problem: 'must be a block that begins at its own first address, such as "10.64.0.0/16"',
    example: '10.64.0.0/16',
  },
  zone: {
    pattern: /^[a-z]{2}(?:-[a-z0-9]+)+$/,
    maxLength: 40,
    problem: 'must be an availability zone such as "us-east-1a"',
    example: 'us-east-1a',
  },
  eksCluster: {
    pattern: /^[0-9A-Za-z][A-Za-z0-9_-]{0,99}$/,
    maxLength: 100,
    problem: 'must be the name of an EKS cluster',
  },
  kubernetesVersion: {
    pattern: KUBERNETES_VERSION,
    maxLength: 4,
    problem: 'must be a version that EKS offers, such as "1.34"',
    example: '1.34',
  },
  instanceType: {
    pattern: /^[a-z][a-z0-9-]{0,15}\.[a-z0-9-]{1,20}$/,
    maxLength: 37,
    problem: 'must be an EC2 type such as "m6i.large"',
    example: 'm6i.large',
  },
  keyArn: {
    pattern: /^arn:aws[a-z-]*:kms:[a-z0-9-]+:[0-9]{12}:key\/[0-9a-f-]+$/,
    maxLength: 200,
    problem: 'must be the ARN of a KMS key',
  },
  roleArn: {
    pattern: new RegExp(`^${ACCOUNT}role/${IAM_PATH}$`),
    maxLength: 700,
    problem: 'must be the ARN of an IAM role',
  },
  principalArn: {
    pattern: new RegExp(`^${ACCOUNT}(?:role|user)/${IAM_PATH}$`),
    maxLength: 700,
    problem: 'must be ARNs of IAM roles or users',
  },
} as const satisfies Record<string, Format>;
