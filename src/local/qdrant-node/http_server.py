"""The HTTP layer: routing, keep-alive, bodies of either framing, JSON answers in Qdrant's envelope, file downloads."""

import io
import os
import re
import socketserver
import sys
import threading
import time
import zlib
from dataclasses import dataclass, field
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler
from typing import Any, Callable
from urllib.parse import parse_qs, unquote

import wire
from errors import ApiError, format_error
from tls import ClientPort, PeerPort
from tarball import COPY_SIZE

VARY = "Origin, Access-Control-Request-Method, Access-Control-Request-Headers"


@dataclass
class Request:
    method: str
    path: tuple[str, ...]
    query: dict[str, str]
    headers: Any
    body: "Body"
    started: float = field(default_factory=time.perf_counter)

    def json(self) -> Any:
        raw = self.body.read()
        try:
            value = wire.decode(raw) if raw else {}
        except ValueError as error:
            raise format_error(str(error)) from error
        if not isinstance(value, dict):
            raise format_error("invalid type, expected an object")
        return value

    def flag(self, name: str, default: bool) -> bool:
        value = self.query.get(name)
        return default if value is None else value == "true"


@dataclass
class Response:
    """`body` is bytes, or None with `send` writing the answer by itself."""

    status: int
    body: bytes = b""
    content_type: str | None = "application/json"
    headers: dict[str, str] = field(default_factory=dict)
    send: Callable[["Handler"], None] | None = None
    close: bool = False


class Body(io.RawIOBase):
    """The request's body, read from the socket as it is asked for; either Content-Length or chunked."""

    def __init__(self, source: Any, length: int | None, chunked: bool):
        self._source, self._left, self._chunked = source, length or 0, chunked
        self.length = length
        self.done = not chunked and not self._left

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytes:
        if size is None or size < 0:
            parts = []
            while part := self.read(COPY_SIZE):
                parts.append(part)
            return b"".join(parts)
        if self.done:
            return b""
        if self._chunked and self._left == 0:
            self._left = int(self._source.readline(100).split(b";")[0], 16)
            if self._left == 0:
                while self._source.readline(65536) not in (b"\r\n", b""):
                    continue
                self.done = True
                return b""
        data = self._source.read(min(size, self._left))
        if not data:
            self.done = True
            raise ConnectionError("the client went away in the middle of a body")
        self._left -= len(data)
        if self._left == 0:
            if self._chunked:
                self._source.readline(10)
            else:
                self.done = True
        return data


Route = Callable[[Request], Response]


class Router:
    """Routes by method and a pattern such as `/collections/{}/points`."""

    def __init__(self) -> None:
        self._routes: list[tuple[str, re.Pattern[str], Route, dict[str, Any]]] = []

    def add(self, method: str, pattern: str, handler: Route, **options: Any) -> None:
        regex = re.compile("^" + re.escape(pattern).replace(r"\{\}", "([^/]+)") + "/?$")
        self._routes.append((method, regex, handler, options))

    def find(self, method: str, path: str) -> tuple[Route, tuple[str, ...], dict[str, Any]] | None:
        for known, regex, handler, options in self._routes:
            if known == method and (match := regex.match(path)):
                return handler, tuple(unquote(part) for part in match.groups()), options
        return None


class Server(socketserver.ThreadingTCPServer):
    allow_reuse_address = True
    daemon_threads = True
    block_on_close = False
    request_queue_size = 256

    def __init__(self, address: tuple[str, int], router: Router, guard: Callable[[Request, dict[str, Any]], None],
                 tls: ClientPort | PeerPort | None = None):
        self.router = router
        self.tls = tls
        self.guard = guard
        self.draining = False
        self._busy = 0
        self._idle = threading.Condition()
        super().__init__(address, Handler)

    def drain(self, seconds: float) -> None:
        """Takes no new connections and lets the requests that are running come to their end."""
        self.draining = True
        self.shutdown()
        self.server_close()
        with self._idle:
            self._idle.wait_for(lambda: self._busy == 0, seconds)

    def enter(self) -> None:
        with self._idle:
            self._busy += 1

    def leave(self) -> None:
        with self._idle:
            self._busy -= 1
            self._idle.notify_all()

    def finish_request(self, request: Any, client_address: Any) -> None:
        if self.tls is None:
            super().finish_request(request, client_address)
            return
        # In the connection's own thread: a slow handshake holds up nobody else.
        wrapped = self.tls.wrap(request)
        try:
            super().finish_request(wrapped, client_address)
        finally:
            self.shutdown_request(wrapped)

    def handle_error(self, request: Any, client_address: Any) -> None:
        error = sys.exc_info()[1]
        if not isinstance(error, OSError):
            super().handle_error(request, client_address)


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    rbufsize = 256 << 10
    server: Server

    def handle_one_request(self) -> None:
        try:
            self.raw_requestline = self.rfile.readline(65537)
            if not self.raw_requestline or not self.parse_request():
                self.close_connection = True
                return
            self.server.enter()
            try:
                self._answer()
            finally:
                self.server.leave()
        except (OSError, ConnectionError):
            self.close_connection = True

    def _answer(self) -> None:
        path, _, query = self.path.partition("?")
        chunked = "chunked" in self.headers.get("transfer-encoding", "").lower()
        length = self.headers.get("content-length")
        body = Body(self.rfile, int(length) if length is not None else None, chunked)
        request = Request(self.command, (), {key: values[-1] for key, values in parse_qs(query).items()},
                          self.headers, body)
        options: dict[str, Any] = {}
        try:
            found = self.server.router.find(self.command, path)
            if found is None:
                self.server.guard(request, {})
                response = Response(404, content_type=None)
            else:
                handler, request.path, options = found
                self.server.guard(request, options)
                response = handler(request)
        except ApiError as error:
            response = error_response(error, request, bool(options.get("text_errors")))
        except (ConnectionError, BrokenPipeError):
            raise
        except Exception as error:  # noqa: BLE001 - a bug here must be an answer, not a dead connection
            import traceback

            traceback.print_exc()
            response = error_response(ApiError(500, f"Service internal error: {error}"), request, False)
        if not body.done:
            # Qdrant does not read the body of a request it refuses, so the client sees a closed connection.
            if response.status < 400 or (body.length or 0) < 64 << 10:
                body.read()
            else:
                response.close = True
        self.write(response)

    def write(self, response: Response) -> None:
        if response.close or self.server.draining:
            self.close_connection = True
        if response.send is not None:
            response.send(self)
            return
        headers = {"content-length": str(len(response.body)), **response.headers}
        if response.content_type is not None:
            headers["content-type"] = response.content_type
        self.wfile.write(self.head(response.status, headers) + response.body)

    def head(self, status: int, headers: dict[str, str]) -> bytes:
        headers.setdefault("vary", VARY)
        headers["date"] = formatdate(usegmt=True)
        if self.close_connection:
            headers["connection"] = "close"
        lines = [f"HTTP/1.1 {status} {self.responses.get(status, ('',))[0]}"]
        lines += [f"{name}: {value}" for name, value in headers.items()]
        return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1", "replace")

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the base class's name
        return


# --- answers ----------------------------------------------------------------------------------------------------


def elapsed(request: Request) -> float:
    return round(time.perf_counter() - request.started, 9)


def result(request: Request, value: Any) -> Response:
    return encode(200, {"result": value, "status": "ok", "time": elapsed(request)})


def accepted(request: Request) -> Response:
    return encode(202, {"status": "accepted", "time": elapsed(request)})


def encode(status: int, value: Any) -> Response:
    return Response(status, wire.encode(value))


def text(status: int, value: str) -> Response:
    return Response(status, value.encode(), "text/plain; charset=utf-8")


def error_response(error: ApiError, request: Request, as_text: bool) -> Response:
    if error.status == 401:
        return Response(401, error.message.encode(), None)
    if as_text:
        return text(error.status, error.message)
    return encode(error.status, {"status": {"error": error.message}, "time": elapsed(request)})


def file_response(request: Request, path: str) -> Response:
    """A stored file, with the validators and ranges of actix-files."""
    file = open(path, "rb")  # noqa: SIM115 - closed by the sender
    stat = os.fstat(file.fileno())
    size = stat.st_size
    etag = f'"{stat.st_ino:x}:{size:x}:{int(stat.st_mtime):x}:{stat.st_mtime_ns % 10**9:x}"'
    headers = {
        "last-modified": formatdate(stat.st_mtime, usegmt=True),
        "content-type": "application/octet-stream",
        "content-disposition": f'attachment; filename="{os.path.basename(path)}"',
        "accept-ranges": "bytes",
        "etag": etag,
    }

    def finish(status: int, more: dict[str, str], start: int = 0, length: int = 0) -> Response:
        def send(handler: Handler) -> None:
            with file:
                handler.wfile.write(handler.head(status, {"content-length": str(length), **headers, **more}))
                if length:
                    handler.connection.sendfile(file, start, length)
        return Response(status, send=send)

    matches, excluded = request.headers.get("if-match"), request.headers.get("if-none-match")
    if matches is not None and matches.strip() != "*" and etag not in [m.strip() for m in matches.split(",")]:
        return finish(412, {})
    if excluded is not None and (excluded.strip() == "*" or etag in [m.strip() for m in excluded.split(",")]):
        return finish(304, {})
    wanted = re.fullmatch(r"bytes=(\d*)-(\d*)", (request.headers.get("range") or "").strip())
    if wanted and request.headers.get("if-range") not in (None, etag):
        wanted = None
    if wanted and (wanted[1] or wanted[2]):
        start = int(wanted[1]) if wanted[1] else max(0, size - int(wanted[2]))
        end = min(int(wanted[2]), size - 1) if wanted[1] and wanted[2] else size - 1
        if start >= size or end < start:
            return finish(416, {"content-range": f"bytes */{size}"})
        return finish(206, {"content-range": f"bytes {start}-{end}/{size}", "content-encoding": "identity"},
                      start, end - start + 1)
    if "gzip" in (request.headers.get("accept-encoding") or ""):
        headers |= {"content-encoding": "gzip", "vary": f"accept-encoding, {VARY}"}
        return chunked_response(file, headers, zlib.compressobj(1, zlib.DEFLATED, 31))
    return finish(200, {}, 0, size)


def chunked_response(file: Any, headers: dict[str, str], compressor: Any = None) -> Response:
    """An answer of unknown length; a failure in the middle cuts the connection."""

    def send(handler: Handler) -> None:
        with file:
            handler.wfile.write(handler.head(200, {"transfer-encoding": "chunked", **headers}))
            while chunk := file.read(COPY_SIZE if compressor is None else COPY_SIZE >> 2):
                write_chunk(handler, chunk if compressor is None else compressor.compress(chunk))
            if compressor is not None:
                write_chunk(handler, compressor.flush())
            handler.wfile.write(b"0\r\n\r\n")

    return Response(200, send=send)


def write_chunk(handler: Handler, data: bytes) -> None:
    if data:
        handler.wfile.write(b"%x\r\n" % len(data))
        handler.wfile.write(data)
        handler.wfile.write(b"\r\n")


def save_multipart(request: Request, path: str) -> None:
    """Writes the one file of a multipart upload to `path`, without holding it in memory."""
    kind = request.headers.get("content-type") or ""
    match = re.search(r'boundary="?([^";]+)"?', kind)
    if match is None:
        raise ApiError(400, "Multipart error: Content-Type boundary is not found")
    ending = b"\r\n--" + match[1].encode()
    head = b""
    while b"\r\n\r\n" not in head:
        chunk = request.body.read(64 << 10)
        if not chunk or len(head) > 1 << 20:
            raise ApiError(400, "Multipart error: Incomplete multipart stream")
        head += chunk
    rest = head.split(b"\r\n\r\n", 1)[1]
    found = False
    with open(path, "wb") as out:
        while True:
            position = rest.find(ending)
            if position >= 0:
                out.write(rest[:position])
                found = True
                break
            keep = len(ending) - 1
            out.write(rest[:-keep] if len(rest) > keep else b"")
            rest = rest[-keep:]
            chunk = request.body.read(COPY_SIZE)
            if not chunk:
                break
            rest += chunk
    request.body.read()
    if not found:
        raise ApiError(400, "Multipart error: Incomplete multipart stream")

