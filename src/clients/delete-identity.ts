/** Deletions in the store, by an identity of their own: what reads and writes backups need not be able to remove them. */
import {
  AbortMultipartUploadCommand,
  DeleteObjectCommand,
  DeleteObjectsCommand,
  type AbortMultipartUploadCommandInput,
  type DeleteObjectCommandInput,
  type DeleteObjectsCommandInput,
  type S3Client,
} from '@aws-sdk/client-s3';
import { FleetError, messageOf } from '../domain/errors.ts';
import { isLeaseKey } from '../domain/naming.ts';

/** As the SDK takes credentials that are valid until a time. */
interface Credentials {
  readonly accessKeyId: string;
  readonly secretAccessKey: string;
  readonly sessionToken?: string;
  readonly expiration?: Date;
}

/** Keys, or a function that gets some. */
export type DeleteIdentity = Credentials | (() => Promise<Credentials>);

/** Session name in the logs of AWS. */
const SESSION = 'qdrant-fleet-deletion';

/**
 * Send every deletion of a client by another one: whatever removes something that is not a lease, whoever asks for it. The
 * commands are told by their names, so that no caller can forget it.
 *
 * @param deleter the same client with the other identity
 */
export function deleteBy(client: S3Client, deleter: S3Client): void {
  client.middlewareStack.add(
    (next, { commandName }) =>
      async (args) => {
        const output = await sendDeletion(deleter, commandName, args.input);
        return output === undefined ? next(args) : { output, response: undefined };
      },
    { step: 'initialize', name: 'deleteIdentity', priority: 'high' },
  );
}

/** A lease is deleted by whoever wrote it. @returns nothing where the command deletes nothing but leases */
function sendDeletion(deleter: S3Client, command: string | undefined, input: object) {
  switch (command) {
    case 'DeleteObjectCommand': {
      const one = input as DeleteObjectCommandInput;
      return isLeaseKey(one.Key ?? '') ? undefined : deleter.send(new DeleteObjectCommand(one));
    }
    case 'DeleteObjectsCommand': {
      const many = input as DeleteObjectsCommandInput;
      const onlyLeases = many.Delete?.Objects?.every(({ Key = '' }) => isLeaseKey(Key)) ?? false;
      return onlyLeases ? undefined : deleter.send(new DeleteObjectsCommand(many));
    }
    case 'AbortMultipartUploadCommand':
      return deleter.send(new AbortMultipartUploadCommand(input as AbortMultipartUploadCommandInput));
    default:
      return undefined;
  }
}

/**
 * Take a role for an hour at a time; the SDK asks again before the hour is over.
 *
 * @param endpoint address of another AWS than Amazon's
 */
export function roleIdentity(RoleArn: string, region: string, endpoint?: string): DeleteIdentity {
  return async () => {
    const { STS } = await import('@aws-sdk/client-sts');
    const sts = new STS({ region, ...(endpoint !== undefined && { endpoint }) });
    try {
      const { Credentials: taken } = await sts.assumeRole({ RoleArn, RoleSessionName: SESSION });
      const { AccessKeyId = '', SecretAccessKey = '', SessionToken, Expiration } = taken ?? {};
      return {
        accessKeyId: AccessKeyId,
        secretAccessKey: SecretAccessKey,
        ...(SessionToken !== undefined && { sessionToken: SessionToken }),
        ...(Expiration !== undefined && { expiration: Expiration }),
      };
    } catch (error) {
      throw new FleetError(
        'StoreDenied',
        `The role ${RoleArn} (FLEET_BACKUP_DELETE_ROLE_ARN), which deletes backups, cannot be taken: ${messageOf(error)} Check that the role is there, and that its trust and the worker's policy allow sts:AssumeRole.`,
        { cause: error },
      );
    } finally {
      sts.destroy();
    }
  };
}
