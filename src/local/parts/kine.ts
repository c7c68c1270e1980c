import { lstat, mkdir, rm } from 'node:fs/promises';
import { createHash } from 'node:crypto';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import type { Part } from '../supervisor.ts';
import { accepts } from './probes.ts';

/** kine: what kube-apiserver takes for etcd, kept in a SQLite file and reached by a unix socket. */
export function kinePart(options: { program: string; dataDir: string }): Part {
  const folder = join(options.dataDir, 'kine');
  const socket = kineSocket(options.dataDir);
  return {
    name: 'kine',
    address: socket,
    command: options.program,
    // With no file named, kine keeps ./db/state.db and sets the pragmas that it was tested with.
    args: ['--listen-address', `unix://${socket}`, '--endpoint', 'sqlite://', '--metrics-bind-address', '0'],
    cwd: folder,
    prepare: async () => {
      await mkdir(join(folder, 'db'), { recursive: true, mode: 0o700 });
      await ownFolder(dirname(socket));
      await rm(socket, { force: true });
    },
    isReady: () => accepts({ path: socket }),
  };
}

/** A unix socket's path may have 103 characters on macOS, 107 on Linux: a data directory may well be deeper. */
export function kineSocket(dataDir: string): string {
  const beside = join(dataDir, 'kine', 'kine.sock');
  if (Buffer.byteLength(beside) < 100) return beside;
  const id = createHash('sha256').update(dataDir).digest('hex').slice(0, 12);
  return join(tmpdir(), `qdrant-fleet-${id}`, 'kine.sock');
}

/** In a folder that everyone may write to, somebody else could have made ours first: whoever owns it owns Kubernetes. */
async function ownFolder(path: string): Promise<void> {
  await mkdir(path, { recursive: true, mode: 0o700 });
  const found = await lstat(path);
  if (!found.isDirectory() || found.uid !== process.getuid?.()) throw new Error(`${path} belongs to somebody else.`);
}
