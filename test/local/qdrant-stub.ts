// Stands in for Qdrant in the kubelet's own tests: tells on its address what it was started with, keeps a file in its storage.
import { appendFileSync, readFileSync } from 'node:fs';
import { createServer } from 'node:http';

const { env } = process;
const journal = `${env.QDRANT__STORAGE__STORAGE_PATH}/starts`;
appendFileSync(journal, `${process.pid}\n`);

createServer((request, response) => {
  if (request.url === '/readyz') {
    response.end('ok');
    return;
  }
  response.setHeader('content-type', 'application/json');
  const starts = readFileSync(journal, 'utf8').trim().split('\n').length;
  response.end(JSON.stringify({ pid: process.pid, args: process.argv.slice(2), starts, env }));
}).listen(Number(env.QDRANT__SERVICE__HTTP_PORT), env.QDRANT__SERVICE__HOST);

process.on('SIGTERM', () => process.exit(0));
