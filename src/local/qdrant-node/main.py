"""A stand-in for a Qdrant server: `main.py --uri http://host:6335 [--bootstrap http://other:6335]`. See README.md."""

import gc
import signal
import sys
import threading
from urllib.parse import urlsplit

from http_routes import Api
from http_server import Server
from node import Node
from p2p import PeerApi
from points import Points
from settings import read_settings
from snapshots import Snapshots
from tls import ClientPort

# How long requests that are running may take to end once the node is told to stop.
DRAIN_SECONDS = 5.0


def main() -> int:
    settings = read_settings(sys.argv[1:])
    # Requests are made of many numbers and few cycles: by default the collector takes a fifth of the time.
    gc.freeze()
    gc.set_threshold(200_000, 20, 20)
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    node = Node(settings)
    points, snapshots = Points(node), Snapshots(node)
    api = Api(node, points, snapshots)
    if settings.clustered:
        peers = PeerApi(node, points, snapshots)
        host = urlsplit(settings.uri or "").hostname or settings.host
        address = (listen_host(host, settings.host), settings.p2p_port)
        serve(Server(address, peers.router, peers.guard, node.client.tls))
    clients: list[Server] = []
    starting = threading.Thread(target=start, args=(node, api, stop, clients))
    starting.start()
    # With a timeout: a signal that another thread receives does not wake an endless wait.
    while not stop.wait(0.1):
        continue
    for server in clients:
        server.drain(DRAIN_SECONDS)
    node.stopping.set()
    starting.join(5)
    node.stop()
    return 0 if not node.failed else 1


def start(node: Node, api: Api, stop: threading.Event, clients: list[Server]) -> None:
    try:
        node.start()
        files = node.settings.service_tls
        address = (node.settings.host, node.settings.http_port)
        clients.append(Server(address, api.router, api.guard, None if files is None else ClientPort(files)))
        serve(clients[0])
        print(f"qdrant-node: peer {node.peer_id} listens on {node.settings.host}:{node.settings.http_port}", flush=True)
    except BaseException as error:  # noqa: BLE001 - the process must end, whatever it was
        if not isinstance(error, SystemExit):
            print(f"qdrant-node: cannot start: {error}", file=sys.stderr, flush=True)
        node.failed = True
        stop.set()


def listen_host(name: str, fallback: str) -> str:
    """The p2p port is bound to the service address; a name in the URI resolves elsewhere."""
    return name if name.replace(".", "").isdigit() else fallback


def serve(server: Server) -> None:
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.1}, daemon=True).start()


if __name__ == "__main__":
    code = main()
    sys.stdout.flush()
    # Handler threads may sit in a read; what had to be written has been flushed.
    import os

    os._exit(code)
