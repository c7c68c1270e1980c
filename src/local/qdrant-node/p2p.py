"""The p2p port: what peers ask of each other. Every call is a POST of JSON that carries the cluster's secret."""

import hmac
from typing import Any, Callable

import wire
from errors import ApiError
from http_server import Request, Response, Router
from node import Node
from points import NOT_HERE, Points, read_shard
from snapshots import Snapshots


class PeerApi:
    def __init__(self, node: Node, points: Points, snapshots: Snapshots):
        self.node = node
        self.router = Router()
        calls: dict[str, Callable[[Any], Any]] = {
            "ping": lambda body: True,
            "state": lambda body: node.base if body["version"] != node.base["version"] else None,
            "apply": self.apply,
            "pending": lambda body: node.pending,
            "propose": self.propose,
            "copy": lambda body: node.begin_transfer(**body),
            "transfer": snapshots.send_shard,
            "write": points.write_as_primary,
            "replicate": points.replicate,
            "read": self.read,
        }
        for name, call in calls.items():
            self.router.add("POST", f"/internal/{name}", answered(call))
        self.router.add("POST", "/internal/join", answered(self.join), joining=True)
        self.router.add("POST", "/internal/receive", lambda request: reply(snapshots.receive_shard(
            request.query["uid"], int(request.query["shard"]), request.body, request.body.length or 0)))

    def guard(self, request: Request, options: dict[str, Any]) -> None:
        settings, secret = self.node.settings, self.node.client.secret
        if options.get("joining"):
            if not settings.api_key:
                return
            given = request.headers.get("api-key") or ""
            keys = [key for key in (settings.api_key, settings.alt_api_key) if key]
            if any(hmac.compare_digest(given.encode(), key.encode()) for key in keys):
                return
        elif secret and hmac.compare_digest((request.headers.get("x-cluster-secret") or "").encode(), secret.encode()):
            return
        raise ApiError(401, "not a peer of this cluster")

    def join(self, body: Any) -> Any:
        node = self.node
        if not node.base:
            raise ApiError(503, "this peer has not joined a cluster itself yet")
        node.propose("add_peer", peer_id=body["peer_id"], uri=body["uri"])
        return {"secret": node.client.secret, "state": node.base}

    def apply(self, body: Any) -> bool:
        self.node.apply(body["state"], body["absorbed"])
        return True

    def propose(self, body: Any) -> Any:
        outcome = self.node.execute(body["command"], body["arguments"])
        return {"result": outcome, "state": self.node.base}

    def read(self, body: Any) -> Any:
        shard = self.node.shards.get((body["uid"], body["shard_id"]))
        if shard is None:
            raise ApiError(NOT_HERE, "this peer does not hold the shard")
        return read_shard(shard, body["request"])


def answered(call: Callable[[Any], Any]) -> Callable[[Request], Response]:
    def handler(request: Request) -> Response:
        try:
            return reply(call(wire.decode(request.body.read())))
        except ApiError as error:
            return reply({"error": error.message}, error.status)

    return handler


def reply(value: Any, status: int = 200) -> Response:
    return Response(status, wire.encode(value))
