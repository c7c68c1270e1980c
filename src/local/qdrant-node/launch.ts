import { accessSync, constants } from 'node:fs';
import { delimiter, join } from 'node:path';
import { toolsDirectory } from '../paths.ts';
import { RECIPES } from '../toolchain/recipes.ts';

export interface QdrantCommandOptions {
  /** This peer's p2p address, such as `http://127.64.0.5:6335`. Without it the node is a cluster of its own. */
  uri?: string;
  /** The p2p address of a peer that is in the cluster already. */
  bootstrap?: string;
}

/**
 * The command that starts one Qdrant node: the server named by QDRANT_BIN, else a `qdrant` on the PATH, else the
 * stand-in of this folder. All three take the same flags and the same environment variables.
 */
export function qdrantCommand(options: QdrantCommandOptions = {}): { file: string; args: string[] } {
  const flags = [
    ...(options.uri === undefined ? [] : ['--uri', options.uri]),
    ...(options.bootstrap === undefined ? [] : ['--bootstrap', options.bootstrap]),
  ];
  const server = process.env['QDRANT_BIN'] ?? executableOnPath('qdrant');
  if (server !== undefined) return { file: server, args: flags };
  return { file: nodePython(), args: [join(import.meta.dirname, 'main.py'), ...flags] };
}

/** The Python that has the engine library: FLEET_QDRANT_NODE_PYTHON, else where the toolchain keeps it. */
function nodePython(): string {
  return (
    process.env['FLEET_QDRANT_NODE_PYTHON'] ??
    join(toolsDirectory(process.env), RECIPES.qdrantEdge.name, RECIPES.qdrantEdge.version, 'bin/python')
  );
}

function executableOnPath(name: string): string | undefined {
  return (process.env['PATH'] ?? '')
    .split(delimiter)
    .filter((folder) => folder !== '')
    .map((folder) => join(folder, name))
    .find((file) => {
      try {
        accessSync(file, constants.X_OK);
        return true;
      } catch {
        return false;
      }
    });
}
