/**
 * Which connections go without TLS off this machine. Each of them carries something that must not be read or changed on
 * the way: API keys, points, backups, workflow histories. They need `FLEET_ALLOW_PLAINTEXT=true`.
 */

/** Whether a host name or address is this machine's own. Names are not resolved: only `localhost` is known. */
export function isLoopback(host: string): boolean {
  const name = host.replace(/^\[|\]$/g, '').toLowerCase();
  return (
    name === 'localhost' ||
    name.endsWith('.localhost') ||
    name === '::1' ||
    /^(::ffff:)?127\.\d{1,3}\.\d{1,3}\.\d{1,3}$/.test(name)
  );
}

/** Whether a URL is plain HTTP to another machine. */
export function isPlaintextUrl(url: string): boolean {
  const { protocol, hostname } = new URL(url);
  return protocol === 'http:' && !isLoopback(hostname);
}

/** Modes of `sslmode` in which the driver checks the server's certificate. */
const VERIFIED_MODES = ['prefer', 'require', 'verify-ca', 'verify-full'];

/**
 * Whether a PostgreSQL URL leads to another machine without TLS, or with TLS whose certificate is not checked. The driver
 * checks it in every mode but `disable` and `no-verify`; with `uselibpqcompat=true` it does as libpq does.
 *
 * @param environmentMode value of `PGSSLMODE`, which counts where the URL says nothing
 * @param environmentHost value of `PGHOST`, which counts where the URL names no host
 */
export function isPlaintextDatabase(url: string, environmentMode?: string, environmentHost = ''): boolean {
  const { hostname, searchParams } = new URL(url);
  const named = searchParams.get('host') ?? decodeURIComponent(hostname);
  const host = named === '' ? environmentHost : named;
  // A path is a socket of this machine.
  if (host === '' || host.startsWith('/') || isLoopback(host)) return false;
  const mode = searchParams.get('sslmode');
  if (mode === null) {
    const given = searchParams.get('ssl');
    if (given !== null) return given !== 'true' && given !== '1';
    return !VERIFIED_MODES.includes(environmentMode ?? '');
  }
  if (searchParams.get('uselibpqcompat') === 'true') {
    const checked = mode.startsWith('verify-') || (mode === 'require' && searchParams.has('sslrootcert'));
    return !checked;
  }
  return !VERIFIED_MODES.includes(mode);
}

/** What to do about a hop that is refused; ends a message. */
export const PLAINTEXT_ADVICE =
  'Use TLS, or set FLEET_ALLOW_PLAINTEXT=true where the network between the two is trusted.';
