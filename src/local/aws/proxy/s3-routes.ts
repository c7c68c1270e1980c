/** S3's operations by method and path, for the log. Objects' bytes are not for the proxy: it treats bodies as text. */

const SUBRESOURCES: Readonly<Record<string, string>> = {
  versioning: 'BucketVersioning',
  lifecycle: 'BucketLifecycleConfiguration',
  encryption: 'BucketEncryption',
  publicAccessBlock: 'PublicAccessBlock',
  ownershipControls: 'BucketOwnershipControls',
  policy: 'BucketPolicy',
  tagging: 'BucketTagging',
  'object-lock': 'ObjectLockConfiguration',
  location: 'BucketLocation',
};
const LISTS: Readonly<Record<string, string>> = {
  versions: 'ListObjectVersions',
  uploads: 'ListMultipartUploads',
  'list-type': 'ListObjectsV2',
};
const VERBS: Readonly<Record<string, string>> = { GET: 'Get', PUT: 'Put', DELETE: 'Delete', HEAD: 'Head' };

/** Path style, as the SDKs use it with an endpoint of one's own. */
export function s3Operation(method: string, url: URL): { operation: string; resource: string | undefined } {
  const [, bucket = '', key = ''] = /^\/([^/]*)\/?(.*)$/.exec(url.pathname) ?? [];
  const resource = [bucket, decodeURIComponent(key)].filter((part) => part !== '').join('/');
  return { operation: nameOf(method, bucket, key, [...url.searchParams.keys()]), resource: resource || undefined };
}

function nameOf(method: string, bucket: string, key: string, query: readonly string[]): string {
  const verb = VERBS[method] ?? method;
  if (bucket === '') return 'ListBuckets';
  if (key !== '') return query.includes('uploadId') && method === 'DELETE' ? 'AbortMultipartUpload' : `${verb}Object`;
  const list = query.find((name) => LISTS[name] !== undefined);
  if (method === 'GET' && list !== undefined) return LISTS[list] ?? '';
  const part = query.find((name) => SUBRESOURCES[name] !== undefined);
  if (part !== undefined) return verb + SUBRESOURCES[part];
  if (method === 'POST' && query.includes('delete')) return 'DeleteObjects';
  return method === 'PUT' ? 'CreateBucket' : method === 'GET' ? 'ListObjects' : `${verb}Bucket`;
}
