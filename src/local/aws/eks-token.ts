/** EKS' bearer tokens: `k8s-aws-v1.` and, in base64url, a presigned GetCallerIdentity that is bound to a cluster. */
import { createHash, createHmac } from 'node:crypto';

const PREFIX = 'k8s-aws-v1.';
/** How long after its signature a token is accepted, whatever the URL says: aws-iam-authenticator's 15 minutes. */
const LIFE_MS = 15 * 60_000;
/** Clocks may differ by so much. */
const SKEW_MS = 5 * 60_000;
const EMPTY = createHash('sha256').digest('hex');

/** Why a token is not accepted. The message holds nothing of the token. */
export class TokenRefused extends Error {
  override name = 'TokenRefused';
}

/** What a token says, before anybody has checked that it is true. */
export interface PresignedIdentity {
  readonly url: URL;
  readonly accessKeyId: string;
  readonly region: string;
}

/**
 * Reads a token and checks what can be checked without a secret.
 *
 * @param stsHosts hosts that stand for STS here, besides Amazon's of the token's region
 * @throws TokenRefused
 */
export function readToken(token: string, stsHosts: readonly string[] = [], now = Date.now()): PresignedIdentity {
  if (!token.startsWith(PREFIX) || token.length > 16_384) throw new TokenRefused('it is no token of EKS');
  const url = parseUrl(Buffer.from(token.slice(PREFIX.length), 'base64url').toString('utf8'));
  const query = (name: string) => url.searchParams.get(name) ?? '';
  for (const name of new Set(url.searchParams.keys())) {
    if (url.searchParams.getAll(name).length > 1) throw new TokenRefused(`its URL has ${name} twice`);
  }
  if (url.pathname !== '/' || query('Action') !== 'GetCallerIdentity' || query('Version') !== '2011-06-15') {
    throw new TokenRefused('its URL asks something else than GetCallerIdentity');
  }
  const [accessKeyId = '', day = '', region = '', service, end] = query('X-Amz-Credential').split('/');
  if (query('X-Amz-Algorithm') !== 'AWS4-HMAC-SHA256' || service !== 'sts' || end !== 'aws4_request') {
    throw new TokenRefused('its signature is not one for STS');
  }
  const hosts = [`sts.${region}.amazonaws.com`, 'sts.amazonaws.com', ...stsHosts];
  if (!hosts.includes(url.host)) throw new TokenRefused(`its URL leads to ${url.host}, which is not STS`);
  const signed = query('X-Amz-SignedHeaders').split(';');
  if (!signed.includes('host') || !signed.includes('x-k8s-aws-id')) {
    throw new TokenRefused('its signature does not cover the cluster (x-k8s-aws-id)');
  }
  const expires = Number(query('X-Amz-Expires'));
  const signedAt = parseDate(query('X-Amz-Date'));
  if (!Number.isInteger(expires) || expires < 0 || expires > LIFE_MS / 1000 || !query('X-Amz-Date').startsWith(day)) {
    throw new TokenRefused('its dates do not fit together');
  }
  if (now > signedAt + LIFE_MS) throw new TokenRefused('it has expired');
  if (now < signedAt - SKEW_MS) throw new TokenRefused('it is of the future');
  return { url, accessKeyId, region };
}

/** Whether the owner of `secret` has signed the token for this cluster. The emulators' STS does not check signatures. */
export function isSignedFor({ url, region }: PresignedIdentity, cluster: string, secret: string): boolean {
  const query = [...url.searchParams].filter(([name]) => name !== 'X-Amz-Signature');
  const names = (url.searchParams.get('X-Amz-SignedHeaders') ?? '').split(';');
  const values: Record<string, string> = { host: url.host, 'x-k8s-aws-id': cluster };
  const request = [
    'GET',
    '/',
    query
      .map(([name, value]) => `${encode(name)}=${encode(value)}`)
      .sort()
      .join('&'),
    ...names.map((name) => `${name}:${values[name] ?? ''}`),
    '',
    names.join(';'),
    EMPTY,
  ].join('\n');
  const date = url.searchParams.get('X-Amz-Date') ?? '';
  const scope = `${date.slice(0, 8)}/${region}/sts/aws4_request`;
  const text = ['AWS4-HMAC-SHA256', date, scope, createHash('sha256').update(request).digest('hex')].join('\n');
  const key = [date.slice(0, 8), region, 'sts', 'aws4_request'].reduce<string | Buffer>(
    (key, part) => createHmac('sha256', key).update(part).digest(),
    `AWS4${secret}`,
  );
  return createHmac('sha256', key).update(text).digest('hex') === url.searchParams.get('X-Amz-Signature');
}

/** The role of an assumed role's session, without its path; any other principal as it is. */
export function principalOf(arn: string): string {
  const [, partition, account, role] = /^arn:([^:]+):sts::(\d+):assumed-role\/([^/]+)\/.+$/.exec(arn) ?? [];
  return role === undefined ? arn : `arn:${partition}:iam::${account}:role/${role}`;
}

function parseUrl(text: string): URL {
  const url = URL.canParse(text) ? new URL(text) : undefined;
  if (url === undefined || !/^https?:$/.test(url.protocol)) throw new TokenRefused('there is no URL in it');
  return url;
}

function parseDate(text: string): number {
  const iso = text.replace(/^(\d{4})(\d\d)(\d\d)T(\d\d)(\d\d)(\d\d)Z$/, '$1-$2-$3T$4:$5:$6Z');
  const time = Date.parse(iso);
  if (Number.isNaN(time)) throw new TokenRefused('it has no date');
  return time;
}

/** As AWS' signatures encode: everything but letters, digits and four marks. */
function encode(text: string): string {
  return encodeURIComponent(text).replaceAll(/[!'()*]/g, (mark) => `%${mark.charCodeAt(0).toString(16).toUpperCase()}`);
}
