/** A kubelet, asked directly. Through the API server the same question needs `nodes/proxy`, which runs commands in pods. */
import { Agent, request } from 'undici';
import { FleetError, messageOf } from '../domain/errors.ts';

/** `GET /stats/summary` of a kubelet, as far as volumes go. What it cannot measure is absent. */
export interface KubeletStats {
  readonly pods?: readonly {
    readonly podRef: { readonly name: string; readonly namespace: string };
    readonly volume?: readonly {
      readonly name: string;
      readonly availableBytes?: number;
      readonly capacityBytes?: number;
      readonly usedBytes?: number;
    }[];
  }[];
}

/** Bytes of an answer; a node of 250 pods tells about 1 MiB. */
const MAX_BYTES = 16 * 1024 * 1024;

/**
 * Ask one kubelet for its volumes.
 *
 * @param origin such as `https://10.0.3.7:10250`
 * @param access `token`: of an identity that may `get` `nodes/stats`; `authority`: PEM that signed the kubelet's
 *   certificate. A token is never sent to a server without a valid certificate, loopback addresses aside.
 * @throws FleetError `KubernetesUnavailable`
 */
export async function kubeletStats(
  origin: string,
  { token, authority }: { readonly token: string; readonly authority?: string | undefined },
): Promise<KubeletStats> {
  const agent = new Agent({
    connect: { timeout: 2000, ...(authority !== undefined && { ca: authority }) },
    headersTimeout: 5000,
    bodyTimeout: 5000,
    maxResponseSize: MAX_BYTES,
  });
  try {
    const headers = { authorization: `Bearer ${token}` };
    const { statusCode, body } = await request(`${origin}/stats/summary`, { dispatcher: agent, headers });
    const text = await body.text();
    if (statusCode !== 200) throw new Error(`status ${statusCode}`);
    return JSON.parse(text) as KubeletStats;
  } catch (error) {
    throw new FleetError('KubernetesUnavailable', `The kubelet at ${origin} tells no stats: ${messageOf(error)}`, {
      cause: error,
    });
  } finally {
    await agent.destroy();
  }
}
