/**
 * What a tenant may have, for operators of the fleet. Reads `DATABASE_URL` and `FLEET_QUOTAS`.
 *
 * npm run --silent quotas -- acme                      all quotas of a tenant
 * npm run --silent quotas -- acme clusters 50          set one for this tenant
 * npm run --silent quotas -- acme machineTypes m6i.*,r6i.*
 * npm run --silent quotas -- acme clusters default     let the configuration say again
 */
import { Catalog } from './clients/catalog.ts';
import { readQuotas, readUse, setQuota } from './clients/quotas.ts';
import { loadConfig } from './config.ts';
import { messageOf } from './domain/errors.ts';
import { MAX_TENANT_LENGTH, nameProblem } from './domain/naming.ts';
import { isQuotaName, QUOTAS, sumOfUse, type QuotaName } from './domain/quota.ts';

const [tenant = '', quota, value] = process.argv.slice(2);
try {
  await main();
} catch (error) {
  process.stderr.write(`${messageOf(error)}\n`);
  process.exitCode = 1;
}

async function main(): Promise<void> {
  const problem = nameProblem(tenant, MAX_TENANT_LENGTH);
  if (problem !== undefined) throw new Error(`The tenant ${problem}. Try: npm run --silent quotas -- acme clusters 50`);
  const config = loadConfig(process.env);
  const catalog = new Catalog(config.DATABASE_URL);
  try {
    await catalog.migrate();
    if (quota !== undefined) {
      const name = knownName(quota);
      const wanted = value === 'default' ? undefined : valueOf(name, value);
      await catalog.run('set the quota', (db) => setQuota(db, tenant, name, wanted));
    }
    const [quotas, uses] = await catalog.run('read the quotas', (db) =>
      Promise.all([readQuotas(db, tenant, config.FLEET_QUOTAS), readUse(db, tenant)]),
    );
    process.stdout.write(`${JSON.stringify({ tenant, quotas, used: sumOfUse([...uses.values()]) }, null, 2)}\n`);
  } finally {
    await catalog.close();
  }
}

function knownName(text: string): QuotaName | 'machineTypes' {
  if (text === 'machineTypes' || isQuotaName(text)) return text;
  throw new Error(`"${text}" is no quota; there are ${[...Object.keys(QUOTAS), 'machineTypes'].join(', ')}.`);
}

function valueOf(name: QuotaName | 'machineTypes', text: string | undefined): number | readonly string[] {
  if (text === undefined || text === '') throw new Error(`Say what "${name}" is to be, or "default".`);
  if (name === 'machineTypes') {
    const types = text.split(',').map((type) => type.trim());
    const bad = types.find((type) => !/^[a-z0-9.*-]{1,64}$/.test(type));
    if (bad !== undefined) throw new Error(`"${bad}" is no EC2 type such as "m6i.large" or "m6i.*".`);
    return types;
  }
  const number = Number(text);
  if (!Number.isFinite(number) || number < 0) throw new Error(`"${text}" is no number from 0 up.`);
  return number;
}
