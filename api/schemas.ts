/** The shapes of requests and answers, for the OpenAPI document. Bounds and formats are those of the guards. */
import { z } from '@hono/zod-openapi';
import { AWS_REGIONS, EKS_LOG_TYPES, NAT_MODES, TAINT_EFFECTS } from '../src/domain/aws.ts';
import { BACKUP_FORMATS, BACKUP_STATES, SHOWN_STATES } from '../src/domain/backup.ts';
import { CLUSTER_PHASES, DISTANCES, PROVIDERS } from '../src/domain/cluster.ts';
import { CONDITION_STATUSES, CONDITION_TYPES } from '../src/domain/conditions.ts';
import { OPERATION_KINDS, type OperationKind } from '../src/domain/operation.ts';
import { RESTORE_VIA } from '../src/domain/restore-via.ts';
import { FORMATS } from '../src/domain/input/formats.ts';
import { NUMBERS, SIZES, TEXTS } from '../src/domain/input/limits.ts';
import { CRON_PATTERN, TIME_ZONE_PATTERN } from './cron.ts';
import { integer, list, map, number, settings, text, texts } from './fields.ts';

const DEFAULT_PAGE_SIZE = 50;

const clusterName = text(FORMATS.cluster).openapi({
  description: 'Lower-case letters, digits and single hyphens, starting with a letter; at most 32 characters.',
  example: 'docs',
});
const nodes = integer(NUMBERS.nodes);
const collections = texts(text(FORMATS.collection), { min: 1, max: SIZES.collectionsNamed }).openapi({
  description: 'Only these collections; default all.',
});
const format = z.enum(BACKUP_FORMATS).openapi({
  description: 'Default "full". "incremental" writes only blocks that no earlier incremental backup holds.',
});
const time = z.iso.datetime();

const RetentionPolicy = z
  .strictObject({
    keepLast: integer(NUMBERS.backupsKept).optional().openapi({ description: 'Keep the newest n.' }),
    keepWithinDays: number(NUMBERS.keepWithinDays).optional(),
    minGood: integer(NUMBERS.backupsKept).optional().openapi({ description: 'Never fewer than this; default 1.' }),
    maxRemovals: integer(NUMBERS.backupsKept).optional().openapi({ description: 'Per sweep; default 20.' }),
    undoHours: number(NUMBERS.undoHours).optional().openapi({ description: 'Default 72.' }),
  })
  .openapi('RetentionPolicy', {
    description: 'Needs keepLast or keepWithinDays. Any rule that keeps a backup keeps it.',
    anyOf: [{ required: ['keepLast'] }, { required: ['keepWithinDays'] }],
  });

const cidr = text(FORMATS.block);
const room = z.boolean().optional();

/** Every field has a default; see `src/domain/aws.ts`. */
const AwsRequest = z
  .strictObject({
    region: z.enum(AWS_REGIONS).optional().openapi({ description: 'Default us-east-1.' }),
    vpcId: text(FORMATS.vpcId).optional().openapi({ description: 'Use this VPC, unchanged. Needs subnetIds.' }),
    subnetIds: texts(text(FORMATS.subnetId), { min: 2, max: SIZES.subnetIds })
      .optional()
      .openapi({ description: 'Of vpcId, in two or more zones.' }),
    cidr: cidr.optional().openapi({ description: 'Of the VPC to make; default 10.64.0.0/16.' }),
    availabilityZones: texts(text(FORMATS.zone), { min: 2, max: SIZES.availabilityZones }).optional(),
    natGateways: z.enum(NAT_MODES).optional().openapi({ description: 'Default one.' }),
    eksCluster: text(FORMATS.eksCluster)
      .optional()
      .openapi({ description: 'Use this EKS cluster instead of making one.' }),
    kubernetesVersion: text(FORMATS.kubernetesVersion).optional(),
    instanceType: text(FORMATS.instanceType).optional(),
    nodeCount: integer(NUMBERS.machines).optional().openapi({
      description: 'Machines; default as many as nodes, and then they grow and shrink with those.',
    }),
    labels: map(FORMATS.labelKey, FORMATS.labelValue, SIZES.labels).optional(),
    taints: list(
      z.strictObject({
        key: text(FORMATS.labelKey),
        value: text(FORMATS.labelValue).optional(),
        effect: z.enum(TAINT_EFFECTS),
      }),
      SIZES.taints,
    ).optional(),
    machineVolumeGiB: integer(NUMBERS.machineVolumeGiB).optional(),
    volumeIops: integer(NUMBERS.volumeIops).optional(),
    volumeThroughput: integer(NUMBERS.volumeThroughput).optional().openapi({ description: 'MiB/s.' }),
    endpointAccess: z
      .strictObject({
        public: z.boolean().optional(),
        publicCidrs: texts(cidr, { min: 1, max: SIZES.publicCidrs }).optional(),
      })
      .optional(),
    secretsEncryptionKeyArn: text(FORMATS.keyArn).optional(),
    logging: texts(z.enum(EKS_LOG_TYPES), { min: 1, max: EKS_LOG_TYPES.length }).optional(),
    adminPrincipalArns: texts(text(FORMATS.principalArn), { min: 1, max: SIZES.adminPrincipalArns }).optional(),
    roles: z
      .strictObject({ cluster: text(FORMATS.roleArn).optional(), node: text(FORMATS.roleArn).optional() })
      .optional(),
    create: z
      .strictObject({ network: room, controlPlane: room, nodeGroups: room, access: room, backupBucket: room })
      .optional()
      .openapi({ description: 'What to make; all but backupBucket by default.' }),
  })
  .openapi('AwsRequest', {
    description:
      'Infrastructure of a cluster whose provider is aws. Of one that there is, nodeCount, labels and taints can be changed.',
  });

const placement = z.strictObject({
  nodeSelector: map(FORMATS.labelKey, FORMATS.labelValue, SIZES.nodeSelector).optional(),
  tolerations: z
    .array(
      z.strictObject({
        key: text(FORMATS.labelKey).optional(),
        operator: z.enum(['Exists', 'Equal']).optional(),
        value: text(FORMATS.labelValue).optional(),
        effect: z.enum(['NoSchedule', 'PreferNoSchedule', 'NoExecute']).optional(),
      }),
    )
    .max(SIZES.tolerations)
    .optional(),
});

const network = z
  .strictObject({
    allowNamespaces: texts(text(FORMATS.namespace), { min: 1, max: SIZES.allowNamespaces }).optional(),
    allowCidrs: texts(text(FORMATS.cidr), { min: 1, max: SIZES.allowCidrs })
      .optional()
      .openapi({ example: ['10.20.0.0/16'] }),
    internalLoadBalancer: z.boolean().optional(),
  })
  .openapi({ description: 'Who may reach ports 6333 and 6334 besides the fleet itself.' });

export const ProvisionBody = z
  .strictObject({
    name: clusterName,
    provider: z.enum(PROVIDERS).optional(),
    nodes: nodes.optional().openapi({ description: 'Default 3.' }),
    version: text(FORMATS.imageTag).optional().openapi({ description: 'Qdrant image tag.', example: 'v1.18.3' }),
    storage: text(FORMATS.storage).optional().openapi({ description: 'Data volume of each node.', example: '10Gi' }),
    replicationFactor: nodes.optional().openapi({ description: 'Default 2, at most the number of nodes.' }),
    resources: z
      .strictObject({ cpu: text(FORMATS.cpu).optional(), memory: text(FORMATS.memory).optional() })
      .optional(),
    config: settings.optional(),
    placement: placement.optional(),
    network: network.optional(),
    tls: z.boolean().optional().openapi({
      description: 'TLS on all ports, for the whole life of the cluster; default as configured, which is yes.',
    }),
    collections: z
      .array(
        z.strictObject({
          preset: text(FORMATS.preset).optional(),
          name: text(FORMATS.collectionKey).optional(),
          vectorSize: integer(NUMBERS.vectorSize).optional(),
          distance: z.enum(DISTANCES).optional(),
          replicationFactor: nodes.optional(),
          shardNumber: integer(NUMBERS.shardNumber).optional(),
        }),
      )
      .max(SIZES.collectionsMade)
      .optional()
      .openapi({ description: 'Collections to create. Omitted: every configured preset. Empty: none.' }),
    readyTimeoutSeconds: integer(NUMBERS.readyTimeoutSeconds).optional(),
    aws: AwsRequest.optional(),
  })
  .openapi('ProvisionRequest', {
    // Infrastructure on AWS is of a cluster whose provider is aws.
    anyOf: [{ properties: { provider: { const: 'aws' } }, required: ['provider'] }, { not: { required: ['aws'] } }],
  });

export const UpdateBody = z
  .strictObject({
    provider: z.enum(PROVIDERS).optional(),
    nodes: nodes.optional(),
    version: text(FORMATS.imageTag).optional().openapi({ description: 'Qdrant image tag.', example: 'v1.19.0' }),
    storage: text(FORMATS.storage).optional().openapi({ description: 'Data volume of each node; it can only grow.' }),
    replicationFactor: nodes.optional(),
    aws: AwsRequest.optional(),
    resources: z
      .strictObject({ cpu: text(FORMATS.cpu).optional(), memory: text(FORMATS.memory).optional() })
      .optional(),
    config: settings.optional(),
    placement: placement.optional(),
    network: network.optional(),
    allowDowntime: z.boolean().optional().openapi({
      description: 'Restart pods although collections without a second replica cannot be reached meanwhile.',
    }),
    repair: z.boolean().optional().openapi({
      description:
        'Give up the peers that do not answer, with what is on their volumes, and make new ones in their place.',
    }),
    dryRun: z.boolean().optional().openapi({ description: 'Tell what would be done, and do nothing.' }),
    readyTimeoutSeconds: integer(NUMBERS.readyTimeoutSeconds).optional(),
    moveTimeoutSeconds: integer(NUMBERS.moveTimeoutSeconds).optional(),
  })
  .openapi('UpdateRequest', { description: 'What is left out stays as it is.' });

export const DeleteBody = z
  .strictObject({
    finalBackup: z.boolean().optional().openapi({ description: 'Back the cluster up before anything goes.' }),
    undoHours: number(NUMBERS.undoHours).optional().openapi({
      description: 'Hours in which the deletion can be taken back; the cluster is suspended meanwhile. Default 0.',
    }),
  })
  .openapi('DeleteRequest');

export const ResumeBody = z
  .strictObject({ readyTimeoutSeconds: integer(NUMBERS.readyTimeoutSeconds).optional() })
  .openapi('ResumeRequest');

export const RotateBody = z
  .strictObject({
    readyTimeoutSeconds: integer(NUMBERS.readyTimeoutSeconds).optional(),
    allowDowntime: z.boolean().optional(),
    graceSeconds: integer(NUMBERS.graceSeconds).optional().openapi({
      description: 'Time for users of the old key to take up the new one; default 300.',
    }),
  })
  .openapi('RotateRequest');

export const RotateCertificatesBody = z
  .strictObject({
    ...RotateBody.shape,
    graceSeconds: z.int().min(0).max(86_400).optional().openapi({
      description: 'Time for users of the cluster to take up the new authority; default 300.',
    }),
    authority: z
      .boolean()
      .optional()
      .openapi({ description: 'A new authority as well; restarts all pods three times.' }),
    newKey: z.boolean().optional().openapi({ description: 'A new private key as well.' }),
    onlyIfDue: z.boolean().optional().openapi({
      description: 'Do nothing while the certificate has more than a third of its life left.',
    }),
  })
  .openapi('RotateCertificatesRequest');

export const BackupBody = z
  .strictObject({
    collections: collections.optional(),
    format: format.optional(),
    retention: RetentionPolicy.optional(),
  })
  .openapi('BackupRequest');

export const RestoreBody = z
  .strictObject({
    cluster: clusterName,
    nodes: nodes.optional(),
    replicationFactor: nodes.optional(),
    collections: collections.optional(),
    rename: map(FORMATS.collectionKey, FORMATS.collection, SIZES.collectionsNamed)
      .optional()
      .openapi({
        description: 'New names by the names in the backup; the others keep theirs.',
        example: { documents: 'documents_v2' },
      }),
    inPlace: z.boolean().optional().openapi({
      description: 'Replace the collections of the same names, after a fresh backup of them; the cluster has to exist.',
    }),
    aliases: z.boolean().optional().openapi({ description: 'false leaves the aliases out; default true.' }),
    via: z.enum(RESTORE_VIA).optional().openapi({
      description: 'How the bytes get to the nodes: by their own reads of the bucket (default), or through a worker.',
    }),
    acceptUnsigned: z.boolean().optional().openapi({
      description:
        'Restore from a backup without a MAC of this fleet, or with a wrong one, too. See docs/backup-trust.md.',
    }),
    acceptDamaged: z.boolean().optional().openapi({
      description:
        'Restore from a backup whose state is CORRUPT, too: what cannot be read or proven fails all the same.',
    }),
    dryRun: z.boolean().optional().openapi({ description: 'Tell what would happen and what is in the way.' }),
  })
  .openapi('RestoreRequest', {
    // What is replaced in place keeps its name and the nodes that there are.
    not: {
      properties: { inPlace: { const: true } },
      required: ['inPlace'],
      anyOf: [{ required: ['rename'] }, { required: ['nodes'] }],
    },
  });

export const RetentionBody = z
  .strictObject({ policy: RetentionPolicy, dryRun: z.boolean().optional() })
  .openapi('RetentionRequest');

export const SweepBody = z
  .strictObject({
    region: z.enum(AWS_REGIONS).openapi({ description: 'AWS region to look at.', example: 'eu-west-1' }),
    cluster: clusterName.optional().openapi({ description: 'Only what names this cluster; default all.' }),
    dryRun: z.boolean().optional().openapi({ description: 'Default true: only list. false removes what is listed.' }),
  })
  .openapi('InfrastructureSweepRequest');

export const ScheduleBody = z
  .strictObject({
    name: text(FORMATS.schedule).optional().openapi({ description: 'Default "backup"; written like a cluster name.' }),
    cron: z.string().max(TEXTS.cron).regex(CRON_PATTERN).openapi({
      description:
        'Five fields or @hourly, @daily, @weekly, @monthly, @yearly. Where day-of-month and day-of-week are both given, both must match.',
      example: '0 3 * * *',
    }),
    timeZone: z
      .string()
      .max(TEXTS.timeZone)
      .regex(TIME_ZONE_PATTERN)
      .optional()
      .openapi({ description: 'IANA name; default UTC.', example: 'Europe/Berlin' }),
    retention: RetentionPolicy.optional(),
    collections: collections.optional(),
    format: format.optional(),
    paused: z.boolean().optional(),
    jitterSeconds: integer(NUMBERS.jitterSeconds).optional().openapi({ description: 'Spread starts over this time.' }),
  })
  .openapi('ScheduleRequest');

export const NoBody = z.strictObject({});

const PAGE_SIZE_PROBLEM = `must be a whole number from ${NUMBERS.pageSize.min} to ${NUMBERS.pageSize.max}`;

export const PageQuery = z.strictObject({
  pageSize: z
    .string()
    .regex(/^[1-9][0-9]{0,2}$/, PAGE_SIZE_PROBLEM)
    .transform(Number)
    .refine((size) => size <= NUMBERS.pageSize.max, PAGE_SIZE_PROBLEM)
    .default(DEFAULT_PAGE_SIZE)
    .openapi({
      type: 'integer',
      minimum: NUMBERS.pageSize.min,
      maximum: NUMBERS.pageSize.max,
      default: DEFAULT_PAGE_SIZE,
    }),
  pageToken: z
    .string()
    .max(TEXTS.pageToken, `must have at most ${TEXTS.pageToken} characters`)
    .regex(/^[A-Za-z0-9_-]+$/, 'must be the nextPageToken of the page before')
    .optional()
    .openapi({ description: 'The nextPageToken of the page before.' }),
});

export const BackupsQuery = PageQuery.extend({
  state: z
    .enum(SHOWN_STATES, { error: `must be one of ${SHOWN_STATES.join(', ')}` })
    .optional()
    .openapi({ description: 'Only backups in this state; default COMMITTED and CORRUPT. DELETING can be taken back.' }),
});

export const Cluster = z
  .object({
    name: z.string(),
    phase: z.enum(CLUSTER_PHASES),
    reason: z.string().optional(),
    conditions: z
      .array(
        z.object({
          type: z.enum(CONDITION_TYPES),
          status: z.enum(CONDITION_STATUSES).openapi({
            description: 'Unknown where nobody has seen lately how the cluster is.',
          }),
          reason: z.string(),
          message: z.string(),
          lastTransitionTime: time,
        }),
      )
      .optional(),
    observedAt: time
      .optional()
      .openapi({ description: 'When somebody last saw how it is; Ready and Degraded are from then.' }),
    deleteAfter: time.optional().openapi({ description: 'Until when POST …/undelete takes the deletion back.' }),
    spec: z.record(z.string(), z.unknown()).optional(),
    namespace: z.string(),
    outputs: z
      .object({
        namespace: z.string(),
        serviceName: z.string(),
        serviceFqdn: z.string(),
        httpUrl: z.string(),
        grpcUrl: z.string(),
        httpPort: z.int(),
        grpcPort: z.int(),
        apiKeySecret: z.object({ name: z.string(), key: z.string() }),
        caSecret: z.object({ name: z.string(), key: z.string() }).optional(),
        internalLoadBalancer: z.string().optional(),
      })
      .optional()
      .openapi({ description: 'How to reach it from inside its Kubernetes cluster. The key is in the Secret.' }),
    createdBy: z.string().optional().openapi({ description: 'Id of the operation that made it.' }),
    createdAt: time.optional(),
    updatedAt: time.optional(),
  })
  .openapi('Cluster');

export const Backup = z
  .object({
    id: z.string(),
    cluster: z.string(),
    state: z.enum(BACKUP_STATES).openapi({
      description: 'COMMITTED; CORRUPT when a verification found damage; DELETING while its removal can be taken back.',
    }),
    bucket: z
      .string()
      .optional()
      .openapi({ description: "The cluster's own bucket, where it has one; else it is in the fleet's." }),
    totals: z
      .object({ collections: z.int(), shards: z.int(), bytes: z.int(), points: z.int(), written: z.int().optional() })
      .optional(),
    createdAt: time,
    changedAt: time,
    deletingSince: time.optional().openapi({ description: 'When it was marked for removal.' }),
    purgeAfter: time.optional().openapi({ description: 'Until then at least POST …/undelete takes the removal back.' }),
  })
  .openapi('Backup');

export const Schedule = z
  .object({
    name: z.string(),
    cluster: z.string(),
    cron: z.string().optional().openapi({ description: 'Absent when it was changed in Temporal to something else.' }),
    timeZone: z.string(),
    paused: z.boolean(),
    note: z.string().optional(),
    jitterSeconds: z.number().optional(),
    retention: RetentionPolicy.optional(),
    collections: z.array(z.string()).optional(),
    format: format.optional(),
    nextRuns: z.array(time),
    recentRuns: z.array(z.object({ operation: z.string(), scheduledAt: time, startedAt: time })),
  })
  .openapi('Schedule');

const step = z.object({
  name: z.string(),
  phase: z.enum(['pending', 'running', 'done', 'failed', 'skipped']),
  startedAt: time.optional(),
  finishedAt: time.optional(),
  message: z.string().optional(),
});

export const Operation = z
  .object({
    id: z.string(),
    kind: z.enum(Object.keys(OPERATION_KINDS) as OperationKind[]),
    cluster: z.string(),
    done: z.boolean(),
    phase: z.string(),
    percent: z.number().min(0).max(100),
    steps: z.array(step),
    startedAt: time,
    finishedAt: time.optional(),
    error: z.object({ code: z.string(), title: z.string(), detail: z.string() }).optional(),
    result: z.unknown().optional(),
    links: z.object({ temporal: z.object({ namespace: z.string(), workflowId: z.string(), runId: z.string() }) }),
  })
  .openapi('Operation');

export const QuotaList = z
  .object({
    items: z.array(
      z.object({
        name: z.string(),
        description: z.string(),
        limit: z.number().optional(),
        used: z.number().optional().openapi({ description: 'Absent where nothing is counted.' }),
        allowed: z.array(z.string()).optional(),
      }),
    ),
  })
  .openapi('QuotaList');

export const Problem = z
  .object({
    type: z.string(),
    title: z.string(),
    status: z.int(),
    detail: z.string(),
    instance: z.string(),
    code: z.string().openapi({ description: 'Stable; one of the codes that the documentation lists.' }),
    requestId: z.string(),
    errors: z
      .array(
        z.object({
          pointer: z.string().optional(),
          parameter: z.string().optional(),
          header: z.string().optional(),
          detail: z.string(),
        }),
      )
      .optional(),
  })
  .openapi('Problem');

export const Health = z
  .object({
    ready: z.boolean(),
    dependencies: z.record(z.string(), z.object({ ready: z.boolean(), reason: z.string().optional() })),
  })
  .openapi('Health');
