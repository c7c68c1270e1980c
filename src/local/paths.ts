import { homedir } from 'node:os';
import { isAbsolute, join, resolve } from 'node:path';
import { fileURLToPath } from 'node:url';

/** The root of the repository, with no slash at its end. */
export const REPOSITORY = fileURLToPath(new URL('../..', import.meta.url)).replace(/\/$/, '');

/** Where a stack keeps everything it must find again after a restart. */
export function dataDirectory(environment: NodeJS.ProcessEnv = process.env): string {
  return resolve(REPOSITORY, environment.FLEET_LOCAL_DIR ?? '.local');
}

/** Where the tools of the local stack are kept, shared by every checkout of one user. */
export function toolsDirectory(environment: NodeJS.ProcessEnv = process.env): string {
  if (environment.FLEET_CACHE_DIR) return resolve(environment.FLEET_CACHE_DIR, 'tools');
  // The XDG specification says that a relative path is to be ignored.
  const xdg = environment.XDG_CACHE_HOME;
  const cache = xdg && isAbsolute(xdg) ? xdg : join(homedir(), '.cache');
  return join(cache, 'qdrant-fleet', 'tools');
}
