/** The shapes of requests and answers, for the OpenAPI document. Ranges are those of `src/domain/input.ts`. */
import { z } from '@hono/zod-openapi';
import { AWS_REGIONS, EKS_LOG_TYPES, NAT_MODES, TAINT_EFFECTS } from '../src/domain/aws.ts';
import { BACKUP_FORMATS, BACKUP_STATES, SHOWN_STATES } from '../src/domain/backup.ts';
import { CLUSTER_PHASES, DISTANCES, PROVIDERS } from '../src/domain/cluster.ts';
import { CONDITION_STATUSES, CONDITION_TYPES } from '../src/domain/conditions.ts';
import { OPERATION_KINDS, type OperationKind } from '../src/domain/operation.ts';
import { RESTORE_VIA } from '../src/domain/restore-via.ts';

export const PAGE_SIZE = { default: 50, max: 250 } as const;

const clusterName = z.string().openapi({
  description: 'Lower-case letters, digits and single hyphens, starting with a letter; at most 32 characters.',
  example: 'docs',
});
const nodes = z.int().min(1).max(64);
const collections = z.array(z.string()).min(1).openapi({ description: 'Only these collections; default all.' });
const format = z.enum(BACKUP_FORMATS).openapi({
  description: 'Default "full". "incremental" writes only blocks that no earlier incremental backup holds.',
});
const time = z.iso.datetime();

const RetentionPolicy = z
  .strictObject({
    keepLast: z.int().min(1).max(100_000).optional().openapi({ description: 'Keep the newest n.' }),
    keepWithinDays: z.number().min(0).max(36_500).optional(),
    minGood: z.int().min(1).max(100_000).optional().openapi({ description: 'Never fewer than this; default 1.' }),
    maxRemovals: z.int().min(1).max(100_000).optional().openapi({ description: 'Per sweep; default 20.' }),
    undoHours: z.number().min(0).max(8760).optional().openapi({ description: 'Default 72.' }),
  })
  .openapi('RetentionPolicy', {
    description: 'Needs keepLast or keepWithinDays. Any rule that keeps a backup keeps it.',
  });

const cidr = z.string().openapi({ example: '10.64.0.0/16' });
const room = z.boolean().optional();

/** Every field has a default; see `src/domain/aws.ts`. */
const AwsRequest = z
  .strictObject({
    region: z.enum(AWS_REGIONS).optional().openapi({ description: 'Default us-east-1.' }),
    vpcId: z.string().optional().openapi({ description: 'Use this VPC, unchanged. Needs subnetIds.' }),
    subnetIds: z.array(z.string()).min(2).optional().openapi({ description: 'Of vpcId, in two or more zones.' }),
    cidr: cidr.optional().openapi({ description: 'Of the VPC to make; default 10.64.0.0/16.' }),
    availabilityZones: z.array(z.string()).min(2).max(6).optional(),
    natGateways: z.enum(NAT_MODES).optional().openapi({ description: 'Default one.' }),
    eksCluster: z.string().optional().openapi({ description: 'Use this EKS cluster instead of making one.' }),
    kubernetesVersion: z.string().optional().openapi({ example: '1.34' }),
    instanceType: z.string().optional().openapi({ example: 'm6i.large' }),
    nodeCount: z.int().min(1).max(450).optional().openapi({
      description: 'Machines; default as many as nodes, and then they grow and shrink with those.',
    }),
    labels: z.record(z.string(), z.string()).optional(),
    taints: z
      .array(z.strictObject({ key: z.string(), value: z.string().optional(), effect: z.enum(TAINT_EFFECTS) }))
      .optional(),
    machineVolumeGiB: z.int().min(20).max(16_384).optional(),
    volumeIops: z.int().min(3000).max(80_000).optional(),
    volumeThroughput: z.int().min(125).max(2000).optional().openapi({ description: 'MiB/s.' }),
    endpointAccess: z
      .strictObject({ public: z.boolean().optional(), publicCidrs: z.array(cidr).min(1).optional() })
      .optional(),
    secretsEncryptionKeyArn: z.string().optional(),
    logging: z.array(z.enum(EKS_LOG_TYPES)).min(1).optional(),
    adminPrincipalArns: z.array(z.string()).min(1).optional(),
    roles: z.strictObject({ cluster: z.string().optional(), node: z.string().optional() }).optional(),
    create: z
      .strictObject({ network: room, controlPlane: room, nodeGroups: room, access: room, backupBucket: room })
      .optional()
      .openapi({ description: 'What to make; all but backupBucket by default.' }),
  })
  .openapi('AwsRequest', {
    description:
      'Infrastructure of a cluster whose provider is aws. Of one that there is, nodeCount, labels and taints can be changed.',
  });

const settings = z
  .record(z.string(), z.union([z.string(), z.number(), z.boolean()]))
  .openapi({ description: 'Qdrant settings by dotted name.', example: { 'storage.wal.wal_capacity_mb': 64 } });

export const ProvisionBody = z
  .strictObject({
    name: clusterName,
    provider: z.enum(PROVIDERS).optional(),
    nodes: nodes.optional().openapi({ description: 'Default 3.' }),
    version: z.string().optional().openapi({ description: 'Qdrant image tag.', example: 'v1.18.3' }),
    storage: z.string().optional().openapi({ description: 'Data volume of each node.', example: '10Gi' }),
    replicationFactor: nodes.optional().openapi({ description: 'Default 2, at most the number of nodes.' }),
    resources: z.strictObject({ cpu: z.string().optional(), memory: z.string().optional() }).optional(),
    config: settings.optional(),
    placement: z
      .strictObject({
        nodeSelector: z.record(z.string(), z.string()).optional(),
        tolerations: z
          .array(
            z.strictObject({
              key: z.string().optional(),
              operator: z.enum(['Exists', 'Equal']).optional(),
              value: z.string().optional(),
              effect: z.enum(['NoSchedule', 'PreferNoSchedule', 'NoExecute']).optional(),
            }),
          )
          .optional(),
      })
      .optional(),
    network: z
      .strictObject({
        allowNamespaces: z.array(z.string()).min(1).optional(),
        allowCidrs: z
          .array(z.string())
          .min(1)
          .optional()
          .openapi({ example: ['10.20.0.0/16'] }),
        internalLoadBalancer: z.boolean().optional(),
      })
      .optional()
      .openapi({ description: 'Who may reach ports 6333 and 6334 besides the fleet itself.' }),
    tls: z.boolean().optional().openapi({
      description: 'TLS on all ports, for the whole life of the cluster; default as configured, which is yes.',
    }),
    collections: z
      .array(
        z.strictObject({
          preset: z.string().optional(),
          name: z.string().optional(),
          vectorSize: z.int().min(1).max(65_536).optional(),
          distance: z.enum(DISTANCES).optional(),
          replicationFactor: nodes.optional(),
          shardNumber: z.int().min(1).max(1024).optional(),
        }),
      )
      .optional()
      .openapi({ description: 'Collections to create. Omitted: every configured preset. Empty: none.' }),
    readyTimeoutSeconds: z.int().min(1).max(86_400).optional(),
    aws: AwsRequest.optional(),
  })
  .openapi('ProvisionRequest');

export const UpdateBody = z
  .strictObject({
    provider: z.enum(PROVIDERS).optional(),
    nodes: nodes.optional(),
    version: z.string().optional().openapi({ description: 'Qdrant image tag.', example: 'v1.19.0' }),
    storage: z.string().optional().openapi({ description: 'Data volume of each node; it can only grow.' }),
    replicationFactor: nodes.optional(),
    aws: AwsRequest.optional(),
    resources: z.strictObject({ cpu: z.string().optional(), memory: z.string().optional() }).optional(),
    config: settings.optional(),
    allowDowntime: z.boolean().optional().openapi({
      description: 'Restart pods although collections without a second replica cannot be reached meanwhile.',
    }),
    repair: z.boolean().optional().openapi({
      description:
        'Give up the peers that do not answer, with what is on their volumes, and make new ones in their place.',
    }),
    dryRun: z.boolean().optional().openapi({ description: 'Tell what would be done, and do nothing.' }),
    readyTimeoutSeconds: z.int().min(1).max(86_400).optional(),
    moveTimeoutSeconds: z.int().min(1).max(604_800).optional(),
  })
  .openapi('UpdateRequest', { description: 'What is left out stays as it is.' });

export const DeleteBody = z
  .strictObject({
    finalBackup: z.boolean().optional().openapi({ description: 'Back the cluster up before anything goes.' }),
    undoHours: z.number().min(0).max(8760).optional().openapi({
      description: 'Hours in which the deletion can be taken back; the cluster is suspended meanwhile. Default 0.',
    }),
  })
  .openapi('DeleteRequest');

export const ResumeBody = z
  .strictObject({ readyTimeoutSeconds: z.int().min(1).max(86_400).optional() })
  .openapi('ResumeRequest');

export const RotateBody = z
  .strictObject({
    readyTimeoutSeconds: z.int().min(1).max(86_400).optional(),
    allowDowntime: z.boolean().optional(),
    graceSeconds: z.int().min(0).max(86_400).optional().openapi({
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
    rename: z
      .record(z.string(), z.string())
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
  .openapi('RestoreRequest');

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
    name: z.string().optional().openapi({ description: 'Default "backup"; written like a cluster name.' }),
    cron: z.string().openapi({
      description:
        'Five fields or @hourly, @daily, @weekly, @monthly, @yearly. Where day-of-month and day-of-week are both given, both must match.',
      example: '0 3 * * *',
    }),
    timeZone: z.string().optional().openapi({ description: 'IANA name; default UTC.', example: 'Europe/Berlin' }),
    retention: RetentionPolicy.optional(),
    collections: collections.optional(),
    format: format.optional(),
    paused: z.boolean().optional(),
    jitterSeconds: z.int().min(0).max(86_400).optional().openapi({ description: 'Spread starts over this time.' }),
  })
  .openapi('ScheduleRequest');

export const NoBody = z.strictObject({});

export const PageQuery = z.strictObject({
  pageSize: z.coerce
    .number({ error: 'must be a number' })
    .int('must be a whole number')
    .min(1, 'must be from 1 to 250')
    .max(PAGE_SIZE.max, 'must be from 1 to 250')
    .optional(),
  pageToken: z.string().optional(),
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
          status: z.enum(CONDITION_STATUSES),
          reason: z.string(),
          message: z.string(),
          lastTransitionTime: time,
        }),
      )
      .optional(),
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
