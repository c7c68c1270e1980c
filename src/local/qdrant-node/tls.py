"""TLS of the two ports, with Qdrant's habits: REST reads its files again after a while, peers read theirs once."""

import socket
import ssl
import threading
import time
from dataclasses import dataclass

# How long a client may take for its part of the handshake.
HANDSHAKE_SECONDS = 10.0


@dataclass(frozen=True)
class TlsFiles:
    cert: str
    key: str
    ca: str | None
    # Seconds after which the REST port reads certificate and key again; 0 for never.
    ttl: float


class ClientPort:
    """The REST port: no client certificate; a new server certificate is taken up by the handshakes that follow."""

    def __init__(self, files: TlsFiles):
        self._files = files
        self._lock = threading.Lock()
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._context.load_cert_chain(files.cert, files.key)
        self._loaded = time.monotonic()

    def wrap(self, plain: socket.socket) -> ssl.SSLSocket:
        with self._lock:
            if self._files.ttl and time.monotonic() - self._loaded >= self._files.ttl:
                self._loaded = time.monotonic()
                try:
                    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
                    context.load_cert_chain(self._files.cert, self._files.key)
                    self._context = context
                except OSError as error:
                    print(f"qdrant-node: keeping the present certificate: {error}", flush=True)
        return shaken(self._context, plain)


class PeerPort:
    """The p2p port: both sides show a certificate and check the other's. The files are read once."""

    def __init__(self, files: TlsFiles, name: str | None):
        if files.ca is None:
            raise ValueError("CA certificate is required for TLS configuration")
        self._name = name
        self._server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._client = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        for context in (self._server, self._client):
            context.load_cert_chain(files.cert, files.key)
            context.load_verify_locations(files.ca)
            context.verify_mode = ssl.CERT_REQUIRED

    def wrap(self, plain: socket.socket) -> ssl.SSLSocket:
        return shaken(self._server, plain)

    def connect(self, plain: socket.socket, host: str) -> ssl.SSLSocket:
        """Here peers call each other by address, so the name that a certificate must have is given separately."""
        return self._client.wrap_socket(plain, server_hostname=self._name or host)


def shaken(context: ssl.SSLContext, plain: socket.socket) -> ssl.SSLSocket:
    plain.settimeout(HANDSHAKE_SECONDS)
    wrapped = context.wrap_socket(plain, server_side=True)
    wrapped.settimeout(None)
    return wrapped


def download_context(files: TlsFiles | None) -> ssl.SSLContext:
    """For snapshots from a URL: the system's authorities, and the node's own where it has TLS."""
    context = ssl.create_default_context()
    if files is not None and files.ca is not None:
        context.load_verify_locations(files.ca)
    return context
