"""Calls from one peer to another over the p2p port, with a pool of kept-alive connections."""

import http.client
import socket
import threading
from typing import Any, BinaryIO
from urllib.parse import urlsplit

import wire
from errors import ApiError
from tls import PeerPort

SECRET_HEADER = "x-cluster-secret"


class PeerUnreachable(ApiError):
    """The peer refused, reset, or did not answer in time; whether it did the work is unknown."""

    def __init__(self, reason: str):
        super().__init__(500, f"Service internal error: {reason}")


class PeerClient:
    def __init__(self, tls: PeerPort | None = None) -> None:
        self.tls = tls
        # Given to a peer when it joins; independent of the API keys, which may be rotated node by node.
        self.secret = ""
        self.failures: dict[str, dict[str, Any]] = {}
        self._idle: dict[str, list[http.client.HTTPConnection]] = {}
        self._lock = threading.Lock()

    def call(self, uri: str, path: str, body: Any = None, timeout: float = 10.0,
             headers: dict[str, str] | None = None, stream: tuple[BinaryIO, int] | None = None) -> Any:
        """POSTs JSON (or a file) and returns the JSON answer.

        Raises PeerUnreachable, or the ApiError that the peer answered with.
        """
        send = {SECRET_HEADER: self.secret, **(headers or {})}
        data: Any = None
        if stream is not None:
            data, send["content-length"] = stream[0], str(stream[1])
        else:
            data = wire.encode(body)
        while True:
            connection, reused = self._take(uri, timeout)
            try:
                connection.request("POST", path, data, send)
                response = connection.getresponse()
                answer = response.read()
            except (OSError, http.client.HTTPException) as error:
                connection.close()
                # A pooled connection to a process that has been restarted since: that process never saw the request.
                if reused and stream is None and not isinstance(error, TimeoutError):
                    self._forget(uri)
                    continue
                self.failures[uri] = {"count": self.failures.get(uri, {}).get("count", 0) + 1, "error": str(error)}
                raise PeerUnreachable(f"{uri}: {error}") from error
            self._give_back(uri, connection)
            self.failures.pop(uri, None)
            if response.status >= 400:
                raise ApiError(response.status, error_text(answer))
            return wire.decode(answer)

    def _take(self, uri: str, timeout: float) -> tuple[http.client.HTTPConnection, bool]:
        with self._lock:
            idle = self._idle.get(uri)
            if idle:
                connection = idle.pop()
                if connection.sock is not None:
                    connection.sock.settimeout(timeout)
                    return connection, True
        parts = urlsplit(uri)
        connection = http.client.HTTPConnection(parts.hostname or "", parts.port or 6335, timeout=timeout)
        try:
            connection.connect()
            connection.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if parts.scheme == "https":
                if self.tls is None:
                    raise OSError("the peer asks for TLS, which this node does not have")
                connection.sock = self.tls.connect(connection.sock, parts.hostname or "")
        except OSError as error:
            connection.close()
            self.failures[uri] = {"count": self.failures.get(uri, {}).get("count", 0) + 1, "error": str(error)}
            raise PeerUnreachable(f"{uri}: {error}") from error
        return connection, False

    def _give_back(self, uri: str, connection: http.client.HTTPConnection) -> None:
        with self._lock:
            self._idle.setdefault(uri, []).append(connection)

    def _forget(self, uri: str) -> None:
        with self._lock:
            for connection in self._idle.pop(uri, []):
                connection.close()


def error_text(answer: bytes) -> str:
    try:
        return str(wire.decode(answer)["error"])
    except (ValueError, KeyError, TypeError):
        return answer.decode("utf-8", "replace")[:200]
