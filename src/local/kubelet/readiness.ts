import { request as httpRequest } from 'node:http';
import { request as httpsRequest } from 'node:https';
import type { V1Container, V1HTTPGetAction } from '@kubernetes/client-node';
import { pause } from '../wait.ts';

/** Far below what charts ask for: a local process is up in well under a second and somebody waits for it. */
const UNREADY_PERIOD_MS = 250;

/**
 * Probes the container until the signal ends it and tells every change. A container without an httpGet probe counts as ready
 * when it runs. initialDelaySeconds is left out: the first probe costs nothing.
 */
export async function followReadiness(
  container: V1Container,
  ip: string,
  signal: AbortSignal,
  onChange: (ready: boolean, problem: string) => void,
): Promise<void> {
  const probe = container.readinessProbe;
  if (!probe?.httpGet) {
    onChange(true, '');
    return;
  }
  const target = targetOf(probe.httpGet, container, ip);
  const timeoutMs = (probe.timeoutSeconds ?? 1) * 1000;
  let ready = false;
  let streak = 0;
  while (!signal.aborted) {
    const problem = await probeOnce(target, timeoutMs);
    if (signal.aborted) return;
    const against = ready ? problem !== undefined : problem === undefined;
    streak = against ? streak + 1 : 0;
    if (streak > 0 && streak >= (ready ? (probe.failureThreshold ?? 3) : (probe.successThreshold ?? 1))) {
      ready = !ready;
      streak = 0;
      onChange(ready, problem ?? '');
    }
    const period = ready ? (probe.periodSeconds ?? 10) * 1000 : UNREADY_PERIOD_MS;
    await pause(period, signal);
  }
}

interface Target {
  url: URL;
  headers: Record<string, string>;
}

function targetOf(action: V1HTTPGetAction, container: V1Container, ip: string): Target {
  const named = container.ports?.find(({ name }) => name === action.port)?.containerPort;
  const scheme = (action.scheme ?? 'HTTP').toLowerCase();
  return {
    url: new URL(action.path ?? '/', `${scheme}://${action.host ?? ip}:${named ?? action.port}`),
    headers: Object.fromEntries((action.httpHeaders ?? []).map(({ name, value }) => [name, value])),
  };
}

/** What is wrong, or undefined when the answer is 200 to 399. Certificates aren't checked, as in a real kubelet. */
async function probeOnce({ url, headers }: Target, timeoutMs: number): Promise<string | undefined> {
  return await new Promise((resolve) => {
    const options = { headers: { ...headers, connection: 'close' }, signal: AbortSignal.timeout(timeoutMs) };
    const request =
      url.protocol === 'https:'
        ? httpsRequest(url, { ...options, rejectUnauthorized: false })
        : httpRequest(url, options);
    request.on('error', (error) => resolve(error.message));
    request.on('response', (response) => {
      response.resume();
      const { statusCode = 0 } = response;
      resolve(statusCode >= 200 && statusCode < 400 ? undefined : `HTTP ${statusCode}`);
    });
    request.end();
  });
}
