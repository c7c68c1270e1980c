/**
 * The process kubelet of the local stack: gives a control plane without machines a few nodes whose Qdrant pods are processes
 * on loopback addresses. `KUBECONFIG=... FLEET_KUBELET_DIR=... node src/local/kubelet/main.ts`; prints `ready` when pods may come.
 */
import { connect, describe, log } from './api.ts';
import { readConfig } from './config.ts';
import { startKubelet } from './kubelet.ts';

try {
  const kubelet = await startKubelet(connect(), readConfig(process.env));
  let stopping = false;
  const stop = (signal: NodeJS.Signals) => {
    if (stopping) return;
    stopping = true;
    log(`${signal}: stopping`);
    kubelet.stop().then(
      () => process.exit(0),
      (error: unknown) => {
        log(`stop: ${describe(error)}`);
        process.exit(1);
      },
    );
  };
  process.on('SIGTERM', stop);
  process.on('SIGINT', stop);
  console.log('ready');
} catch (error) {
  log(describe(error));
  process.exit(1);
}
