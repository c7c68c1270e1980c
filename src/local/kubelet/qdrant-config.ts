import { parse } from 'yaml';

/**
 * Turns a Qdrant configuration file into the environment variables that mean the same (`a: {b: 1}` is `QDRANT__A__B=1`):
 * the chart mounts it as a file, and a process on this machine has no /qdrant/config. Lists have no such form and are left out.
 */
export function configToEnv(yaml: string): Record<string, string> {
  const env: Record<string, string> = {};
  const walk = (value: unknown, path: string[]) => {
    if (value === null || value === undefined || Array.isArray(value)) return;
    if (typeof value === 'object') {
      for (const [key, inner] of Object.entries(value)) walk(inner, [...path, key]);
    } else if (path.length > 0) {
      env[['QDRANT', ...path].join('__').toUpperCase()] = typeof value === 'string' ? value : JSON.stringify(value);
    }
  };
  walk(parse(yaml), []);
  return env;
}
