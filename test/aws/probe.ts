/** Asks an emulator for an operation with nothing but dummy names: one that knows it answers in terms of the operation. */
import { ROUTES, routePath } from '../../src/local/aws/proxy/eks-routes.ts';

const S3: Readonly<Record<string, string>> = {
  CreateBucket: 'PUT /probe-bucket',
  DeleteBucket: 'DELETE /probe-nobody',
  GetBucketTagging: 'GET /probe-nobody?tagging',
  ListObjectVersions: 'GET /probe-nobody?versions',
  PutBucketEncryption: 'PUT /probe-nobody?encryption',
  PutBucketLifecycleConfiguration: 'PUT /probe-nobody?lifecycle',
  PutBucketPolicy: 'PUT /probe-nobody?policy',
  PutBucketTagging: 'PUT /probe-nobody?tagging',
  PutBucketVersioning: 'PUT /probe-nobody?versioning',
  PutObjectLockConfiguration: 'PUT /probe-nobody?object-lock',
  PutPublicAccessBlock: 'PUT /probe-nobody?publicAccessBlock',
};

/** @returns undefined where the answer does not tell: moto breaks (500) over what is missing, known or not */
export async function probe(url: string, name: string): Promise<boolean | undefined> {
  const [service = '', operation = ''] = name.split(':');
  const scope = `probe/20260101/us-east-1/${service}/aws4_request`;
  const headers = {
    authorization: `AWS4-HMAC-SHA256 Credential=${scope}, SignedHeaders=host, Signature=${'0'.repeat(64)}`,
  };
  const answer = await send();
  const body = await answer.text();
  if (answer.status >= 500) return undefined;
  const unknown =
    /<Code>InvalidAction<|No route for /.test(body) || (answer.status === 404 && body.startsWith('<!doctype html>'));
  return !unknown;

  function send(): Promise<Response> {
    if (service === 'eks') {
      const [, method = 'GET', path = ''] = ROUTES.find(([known]) => known === operation) ?? [];
      const filled = routePath(path).replaceAll(/\{\w+\}/g, 'nobody');
      return fetch(url + filled, { method, headers, ...(method === 'POST' && { body: '{}' }) });
    }
    if (service === 's3') {
      const [method = 'GET', path = ''] = (S3[operation] ?? '').split(' ');
      return fetch(url + path, { method, headers });
    }
    const version =
      { autoscaling: '2011-01-01', ec2: '2016-11-15', iam: '2010-05-08', sts: '2011-06-15' }[service] ?? '';
    const body = new URLSearchParams({ Action: operation, Version: version });
    return fetch(url, { method: 'POST', headers, body });
  }
}
