/**
 * What of a failure a tenant may read. Messages of the closed set are written for people, but those of an outage may
 * name the hosts, ports and accounts of the installation, and those of an unexpected error may hold anything. The whole
 * message stands in the log and in the workflow's history, which operators read.
 */
import { ERROR_CODES, isErrorCode, type ErrorCode } from './errors.ts';

/** Codes whose message is about the installation's own parts, or comes from an error that nobody foresaw. */
const FOR_OPERATORS: readonly ErrorCode[] = [
  'Internal',
  'CatalogUnavailable',
  'TemporalUnavailable',
  'KubernetesUnavailable',
  'KubernetesDenied',
  'StoreUnavailable',
  'StoreDenied',
  'CloudUnavailable',
  'CloudDenied',
];

/** A code, its title and what happened, fit to be shown to the tenant. */
export interface PublicFailure {
  readonly code: string;
  readonly title: string;
  readonly detail: string;
}

/** @param where how an operator finds the rest, such as `operation "backup-acme--docs-1a2b3c4d"` */
export function publicFailure(code: string, message: string, where: string): PublicFailure {
  const known = isErrorCode(code) ? code : 'Internal';
  const { title } = ERROR_CODES[known];
  const detail = FOR_OPERATORS.includes(known)
    ? `${title}. An operator finds the details in the history of ${where}.`
    : withoutAddresses(message);
  return { code: known, title, detail };
}

/** Addresses of hosts: with a scheme, as `user@host:port`, IPv4 with or without a port, IPv6 in brackets. */
const ADDRESSES = [
  /\b([a-z][a-z0-9+.-]{1,20}):\/\/[^\s"'<>)\]/?#]{1,255}/gi,
  /\b\d{1,3}(?:\.\d{1,3}){3}(?::\d{1,5})?\b(?!\/\d)/g,
  /\[[0-9a-f:.]{2,45}\](?::\d{1,5})?/gi,
  /\b(?:[a-z0-9-]{1,63}\.){1,10}(?:svc|internal|local)(?:\.[a-z]{1,63}){0,3}(?::\d{1,5})?\b/gi,
] as const;

/** The same text with `…` in place of addresses of hosts. Networks in CIDR form, which tenants name, stay. */
export function withoutAddresses(text: string): string {
  return ADDRESSES.reduce(
    (rest, pattern) =>
      rest.replaceAll(pattern, (_, scheme: unknown) => (typeof scheme === 'string' ? `${scheme}://…` : '…')),
    text,
  );
}
