/** Whom to trust when a server of a cluster shows its certificate. */
import { Agent, type buildConnector } from 'undici';
import { messageOf } from '../domain/errors.ts';

/** Immutable; made anew for each look at the cluster. */
export interface ServerTrust {
  /** Authorities in PEM. No other is trusted. */
  readonly ca: string;
  /** The name that the certificate has to have, whatever address the server is reached by. */
  readonly servername: string;
  /** Where the authorities come from, for messages. */
  readonly source: string;
}

const agents = new Map<string, Agent>();
/** A worker speaks to few clusters at a time; an agent that is dropped ends its calls first. */
const MOST_AGENTS = 256;

/** One agent, and so one pool of connections, for each trust. */
export function agentFor(
  { ca, servername }: ServerTrust,
  options: Agent.Options,
  connect: Pick<buildConnector.BuildOptions, 'timeout'>,
): Agent {
  const key = `${servername}\n${ca}`;
  const known = agents.get(key);
  if (known !== undefined) {
    agents.delete(key);
    agents.set(key, known);
    return known;
  }
  const agent = new Agent({ ...options, connect: { ...connect, ca, servername } });
  agents.set(key, agent);
  const [oldest] = agents;
  if (agents.size > MOST_AGENTS && oldest !== undefined) {
    agents.delete(oldest[0]);
    void oldest[1].close();
  }
  return agent;
}

/** Reasons of OpenSSL and Node for refusing a certificate. */
const UNTRUSTED = new Set([
  'CERT_HAS_EXPIRED',
  'CERT_NOT_YET_VALID',
  'CERT_SIGNATURE_FAILURE',
  'CERT_UNTRUSTED',
  'DEPTH_ZERO_SELF_SIGNED_CERT',
  'ERR_TLS_CERT_ALTNAME_INVALID',
  'INVALID_CA',
  'INVALID_PURPOSE',
  'SELF_SIGNED_CERT_IN_CHAIN',
  'UNABLE_TO_GET_ISSUER_CERT',
  'UNABLE_TO_GET_ISSUER_CERT_LOCALLY',
  'UNABLE_TO_VERIFY_LEAF_SIGNATURE',
]);

/** Why a server's certificate was refused, and what to do; `undefined` when something else went wrong. */
export function whyUntrusted(error: unknown, trust: ServerTrust | undefined): string | undefined {
  for (let cause = error; cause instanceof Error; cause = cause.cause) {
    const { code } = cause as { code?: unknown };
    if (trust === undefined || typeof code !== 'string' || !UNTRUSTED.has(code)) continue;
    return (
      `its certificate was refused (${messageOf(cause)}). It has to be for "${trust.servername}" and signed by an authority in ` +
      `${trust.source}. Something else may answer there; otherwise RotateCertificates puts the certificates right.`
    );
  }
  return undefined;
}
