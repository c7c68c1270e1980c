import { generateKeyPairSync, randomBytes } from 'node:crypto';
import { existsSync, mkdirSync, readFileSync, renameSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';

/** What the parts of one stack authenticate each other with: made once for a data directory and kept there. */
export interface Secrets {
  readonly postgresPassword: string;
  readonly s3AccessKey: string;
  readonly s3SecretKey: string;
  /** Of the administrator. */
  readonly kubernetesToken: string;
  /** Of the fleet's worker, for Kubernetes. */
  readonly workerToken: string;
  readonly apiToken: string;
  /** Base64, signs the records of backups. */
  readonly backupMacKey: string;
  /** PEM, the key that signs service account tokens. */
  readonly serviceAccountKey: string;
}

export function loadSecrets(dataDir: string): Secrets {
  const path = join(dataDir, 'secrets.json');
  const kept = existsSync(path) ? (JSON.parse(readFileSync(path, 'utf8')) as Partial<Secrets>) : {};
  const secrets = { ...newSecrets(), ...kept };
  writeSecret(path, `${JSON.stringify(secrets, null, 2)}\n`);
  writeSecret(apiTokenPath(dataDir), `${secrets.apiToken}\n`);
  return secrets;
}

/** The API token also has a file of its own, for `$(cat ...)` on a command line. */
export function apiTokenPath(dataDir: string): string {
  return join(dataDir, 'api-token');
}

/** Writes a file that only its owner may read, complete or not at all. */
export function writeSecret(path: string, content: string): void {
  mkdirSync(dirname(path), { recursive: true });
  writeFileSync(`${path}.new`, content, { mode: 0o600 });
  renameSync(`${path}.new`, path);
}

function newSecrets(): Secrets {
  const { privateKey } = generateKeyPairSync('ec', { namedCurve: 'P-256' });
  return {
    postgresPassword: random(18),
    s3AccessKey: `LOCAL${randomBytes(8).toString('hex').toUpperCase()}`,
    s3SecretKey: random(30),
    kubernetesToken: random(30),
    workerToken: random(30),
    apiToken: `fleet_${random(24)}`,
    backupMacKey: randomBytes(32).toString('base64'),
    serviceAccountKey: privateKey.export({ type: 'sec1', format: 'pem' }).toString(),
  };
}

/** Base64url: stands in a URL, a header or a comma-separated file without being quoted. */
function random(bytes: number): string {
  return randomBytes(bytes).toString('base64url');
}
