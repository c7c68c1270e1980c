/**
 * One run of the byte path as a process of its own, so that its CPU time and memory can be compared with those of other
 * clients. Settings come by environment; each part that is begun and the outcome are printed as JSON lines.
 */
import { readFileSync, writeSync } from 'node:fs';
import { BufferPool, relay } from '../src/clients/relay.ts';
import { BackupStore } from '../src/clients/s3.ts';
import { SnapshotSource } from '../src/clients/snapshot-source.ts';

const text = (name: string) => process.env[`BENCH_${name}`] ?? '';
const number = (name: string) => Number(text(name));
const print = (line: object) => writeSync(1, `${JSON.stringify(line)}\n`);

const store = new BackupStore({
  bucket: text('BUCKET'),
  region: 'us-east-1',
  endpoint: text('ENDPOINT'),
  forcePathStyle: true,
});
if (text('PRINT_PARTS') === 'true') {
  const send = store.uploadPart.bind(store);
  store.uploadPart = (upload, part, signal) => {
    print({ begun: part.body.length });
    return send(upload, part, signal);
  };
  const stream = store.streamPart.bind(store);
  store.streamPart = (upload, part, signal) => {
    print({ begun: part.size });
    return stream(upload, part, signal);
  };
}
const { signal } = new AbortController();
const buffers = new BufferPool(number('BUFFER_BYTES'));
const source = await SnapshotSource.open(text('URL'), {}, signal);
await store.check();
const idle = memory('VmRSS');
const streams = Array.from({ length: number('STREAMS') }, (_, index) =>
  relay({
    source,
    store,
    key: `${text('KEY')}-${index}`,
    partSize: number('PART_BYTES'),
    lanes: number('LANES'),
    sha256: text('SHA256') === 'true',
    buffers,
    signal,
    onProgress: () => undefined,
  }),
);
const results = await Promise.all(streams);
store.close();
print({
  sent: results.reduce((sum, { sent }) => sum + sent, 0),
  sha256: results[0]?.sha256,
  idle,
  peak: memory('VmHWM'),
});

/** Bytes, as Linux counts them. */
function memory(field: 'VmRSS' | 'VmHWM'): number {
  const [, kilobytes = '0'] =
    new RegExp(`^${field}:\\s+(\\d+) kB`, 'm').exec(readFileSync('/proc/self/status', 'utf8')) ?? [];
  return Number(kilobytes) * 1024;
}
