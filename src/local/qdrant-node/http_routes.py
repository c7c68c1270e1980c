"""The REST surface: which route does what, and which key it asks for."""

import hmac
import os
import threading
import time
import uuid
from typing import Any, Callable

import metadata
from engine import Json, point_id
from errors import ApiError, bad_request, forbidden, format_error, not_found
from http_server import Request, Response, Router, accepted, chunked_response, encode, file_response, result
from http_server import save_multipart, text
from metrics import metrics_text
from node import Node
from points import Points
from snapshots import Snapshots


class Api:
    def __init__(self, node: Node, points: Points, snapshots: Snapshots):
        self.node = node
        self.points = points
        self.snapshots = snapshots
        self.router = Router()
        self.instance = str(uuid.uuid4())
        self._routes()

    def guard(self, request: Request, options: dict[str, Any]) -> None:
        """Keys as Qdrant checks them: a full key for everything, the read-only key for reads."""
        settings = self.node.settings
        full = [key for key in (settings.api_key, settings.alt_api_key) if key]
        if options.get("open") or not (full or settings.read_only_api_key):
            return
        given = request.headers.get("api-key")
        if given is None and (request.headers.get("authorization") or "").startswith("Bearer "):
            given = request.headers["authorization"][len("Bearer "):]
        if given is None:
            raise ApiError(401, "Must provide an API key or an Authorization bearer token")
        if any(hmac.compare_digest(given.encode(), key.encode()) for key in full):
            return
        if not settings.read_only_api_key or not hmac.compare_digest(given.encode(), settings.read_only_api_key.encode()):
            raise ApiError(401, "Invalid API key or JWT")
        if not options.get("read", request.method == "GET"):
            raise forbidden("Global manage access is required")

    def _routes(self) -> None:
        add = self.router.add
        add("GET", "/", lambda r: encode(200, {"title": "qdrant - vector search engine", "version": self.node.settings.version}), open=True)
        add("GET", "/livez", lambda r: text(200, "healthz check passed"), open=True)
        add("GET", "/healthz", lambda r: text(200, "healthz check passed"), open=True)
        add("GET", "/readyz", self.readyz, open=True)
        add("GET", "/metrics", lambda r: text(200, metrics_text(self.node, self.snapshots)))
        add("GET", "/telemetry", self.telemetry)
        add("GET", "/issues", lambda r: result(r, {"issues": []}))
        add("GET", "/cluster", self.cluster)
        add("DELETE", "/cluster/peer/{}", self.remove_peer)

        add("GET", "/collections", lambda r: result(
            r, {"collections": [{"name": name} for name in self.node.state["collections"]]}))
        add("POST", "/collections/aliases", lambda r: result(r, self.propose("change_aliases", body=r.json())))
        add("GET", "/aliases", lambda r: result(r, {"aliases": self.aliases(None)}))
        add("GET", "/collections/{}/aliases", lambda r: result(r, {"aliases": self.aliases(r.path[0])}))
        add("PUT", "/collections/{}", lambda r: result(r, self.propose("create_collection", name=r.path[0], body=r.json())))
        add("PATCH", "/collections/{}", lambda r: result(
            r, self.propose("update_collection", name=r.path[0], body=r.json())))
        add("DELETE", "/collections/{}", lambda r: result(r, self.propose("delete_collection", name=r.path[0])))
        add("GET", "/collections/{}", self.collection)
        add("GET", "/collections/{}/exists", lambda r: result(
            r, {"exists": self.node.state["aliases"].get(r.path[0], r.path[0]) in self.node.state["collections"]}))
        add("GET", "/collections/{}/cluster", self.collection_cluster)
        add("POST", "/collections/{}/cluster", self.cluster_operation)
        add("GET", "/collections/{}/shards", lambda r: result(
            r, {"shard_keys": [{"key": key} for key in metadata.collection_of(self.node.state, r.path[0])["keys"]]}))
        add("PUT", "/collections/{}/shards", lambda r: result(
            r, self.propose("create_shard_key", name=r.path[0], body=r.json())))
        add("POST", "/collections/{}/shards/delete", lambda r: result(
            r, self.propose("delete_shard_key", name=r.path[0], body=r.json())))
        add("PUT", "/collections/{}/index", lambda r: self.updated(
            r, {"operation_id": self.propose("create_index", name=r.path[0], body=r.json())}))
        add("DELETE", "/collections/{}/index/{}", lambda r: self.updated(
            r, {"operation_id": self.propose("delete_index", name=r.path[0], field=r.path[1])}))
        self._point_routes()
        self._snapshot_routes()

    def _point_routes(self) -> None:
        add, points = self.router.add, self.points
        base = "/collections/{}/points"
        add("PUT", base, lambda r: self.updated(r, points.upsert(r.path[0], r.json())))
        add("POST", base, lambda r: result(r, points.retrieve(r.path[0], r.json())), read=True)
        add("POST", f"{base}/scroll", lambda r: result(r, points.scroll(r.path[0], r.json())), read=True)
        add("POST", f"{base}/count", lambda r: result(r, points.count(r.path[0], r.json())), read=True)
        add("POST", f"{base}/query", lambda r: result(r, {"points": points.query(r.path[0], r.json())}), read=True)
        add("POST", f"{base}/query/batch", lambda r: result(
            r, [{"points": points.query(r.path[0], body)} for body in r.json().get("searches", [])]), read=True)
        add("POST", f"{base}/search", lambda r: result(r, points.query(r.path[0], search_as_query(r.json()))), read=True)
        add("POST", "/collections/{}/facet", lambda r: result(r, points.facet(r.path[0], r.json())), read=True)
        for path, kind in (("payload", "set_payload"), ("payload/delete", "delete_payload"),
                           ("payload/clear", "clear_payload"), ("delete", "delete"), ("vectors/delete", "delete_vectors")):
            add("POST", f"{base}/{path}", self.selected(kind))
        add("PUT", f"{base}/payload", self.selected("overwrite_payload"))
        add("PUT", f"{base}/vectors", lambda r: self.updated(r, points.upsert(r.path[0], r.json(), "update_vectors")))
        add("GET", f"{base}/{{}}", self.point)

    def _snapshot_routes(self) -> None:
        add, snapshots = self.router.add, self.snapshots
        full = {"folder": lambda r: snapshots.root}
        one = {"folder": lambda r: snapshots.collection_folder(r.path[0])}
        shard = {"folder": lambda r: snapshots.shard_folder(r.path[0], shard_number(r))}
        for base, where in (("/snapshots", full), ("/collections/{}/snapshots", one),
                            ("/collections/{}/shards/{}/snapshots", shard)):
            folder = where["folder"]
            add("GET", base, lambda r, f=folder: result(r, snapshots.list(f(r))))
            add("GET", f"{base}/{{}}", lambda r, f=folder: file_response(r, snapshots.find(f(r), r.path[-1])),
                text_errors=True)
            add("DELETE", f"{base}/{{}}", lambda r, f=folder: self.waited(
                r, lambda: snapshots.delete(f(r), r.path[-1])))
        add("POST", "/snapshots", lambda r: self.waited(r, snapshots.create_full))
        add("POST", "/collections/{}/snapshots", self.create_collection_snapshot)
        add("POST", "/collections/{}/shards/{}/snapshots", self.create_shard_snapshot)
        add("GET", "/collections/{}/shards/{}/snapshot", self.stream_shard, text_errors=True, read=False)
        add("GET", "/collections/{}/shards/{}/snapshot/partial/manifest", self.manifest)
        add("PUT", "/collections/{}/snapshots/recover", self.recover_collection)
        add("PUT", "/collections/{}/shards/{}/snapshots/recover", self.recover_shard)
        add("POST", "/collections/{}/snapshots/upload", self.upload_collection)
        add("POST", "/collections/{}/shards/{}/snapshots/upload", self.upload_shard)

    # --- service --------------------------------------------------------------------------------------------------

    def readyz(self, request: Request) -> Response:
        if self.node.ready.is_set():
            return text(200, "all shards are ready")
        return text(503, "some shards are not ready")

    def telemetry(self, request: Request) -> Response:
        collections = self.node.state["collections"]
        full: Json = {}
        if int(request.query.get("details_level", "0")) >= 4:
            # Without their shards, of which the engine does not tell the sizes.
            full["collections"] = [
                {"id": name, "config": {**collection["config"], "uuid": str(uuid.UUID(int=int(collection["uid"], 16)))}}
                for name, collection in collections.items()]
        return result(request, {
            "id": self.instance,
            "app": {"name": "qdrant", "version": self.node.settings.version, "features": {"debug": False, "recovery_mode": False}},
            "collections": {"number_of_collections": len(collections), **full},
            "cluster": {"enabled": self.node.settings.clustered},
        })

    def cluster(self, request: Request) -> Response:
        node, state = self.node, self.node.state
        if not node.settings.clustered:
            return result(request, {"status": "disabled"})
        working = node.is_owner or time.time() - node.owner_seen < 3
        stamp = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime()) + f".{time.time_ns() % 10**9:09d}Z"
        status: Json = {"consensus_thread_status": "working", "last_update": stamp}
        if not working:
            status = {"consensus_thread_status": "stopped_with_err",
                      "err": "the peer that decides metadata changes cannot be reached"}
        known = {peer["uri"] for peer in state["peers"].values()}
        return result(request, {
            "status": "enabled",
            "peer_id": node.peer_id,
            "peers": state["peers"],
            "raft_info": {"term": 1, "commit": state["version"], "pending_operations": len(node.pending),
                          "leader": state["owner"], "role": "Leader" if node.is_owner else "Follower", "is_voter": True},
            "consensus_thread_status": status,
            "message_send_failures": {
                uri: {"count": failure["count"], "latest_error": failure["error"], "latest_error_timestamp": stamp}
                for uri, failure in list(node.client.failures.items()) if uri in known},
        })

    def remove_peer(self, request: Request) -> Response:
        if not self.node.settings.clustered:
            raise bad_request("Distributed mode disabled.")
        peer = integer(request.path[0])
        return result(request, self.propose("remove_peer", peer_id=peer, force=request.flag("force", False)))

    def propose(self, command: str, **arguments: Any) -> Any:
        return self.node.propose(command, **arguments)

    # --- collections ----------------------------------------------------------------------------------------------

    def aliases(self, name: str | None) -> list[Json]:
        state = self.node.state
        real = None if name is None else metadata.resolve(state, name)
        return [{"alias_name": alias, "collection_name": target} for alias, target in state["aliases"].items()
                if real in (None, target)]

    def collection(self, request: Request) -> Response:
        name = metadata.resolve(self.node.state, request.path[0])
        about = self.points.describe(name)
        config = self.node.state["collections"][name]["config"]
        return result(request, {
            "status": "green", "optimizer_status": "ok",
            "indexed_vectors_count": about["indexed_vectors_count"], "points_count": about["points_count"],
            "segments_count": about["segments_count"], "config": config, "payload_schema": about["payload_schema"],
            "update_queue": {"length": 0},
        })

    def collection_cluster(self, request: Request) -> Response:
        node = self.node
        name = metadata.resolve(node.state, request.path[0])
        collection = node.state["collections"][name]
        me, local, remote = str(node.peer_id), [], []
        for shard_id, shard in sorted(collection["shards"].items(), key=lambda item: int(item[0])):
            head = {"shard_id": int(shard_id)}
            if shard["key"] is not None:
                head["shard_key"] = shard["key"]
            for peer, state in shard["replicas"].items():
                if peer != me:
                    remote.append({**head, "peer_id": int(peer), "state": state})
                elif held := node.shards.get((collection["uid"], int(shard_id))):
                    local.append({**head, "points_count": held.count(), "state": state})
        return result(request, {
            "peer_id": node.peer_id, "shard_count": len(collection["shards"]), "local_shards": local,
            "remote_shards": remote, "shard_transfers": [
                {key: value for key, value in transfer.items() if key != "id"} for transfer in collection["transfers"]]})

    def cluster_operation(self, request: Request) -> Response:
        if not self.node.settings.clustered:
            raise bad_request("Distributed mode disabled.")
        name = metadata.resolve(self.node.state, request.path[0])
        body = request.json()
        for kind in ("create_sharding_key", "drop_sharding_key"):
            if spec := body.get(kind):
                command = "create_shard_key" if kind.startswith("create") else "delete_shard_key"
                return result(request, self.propose(command, name=name, body=spec))
        for kind in ("replicate_shard", "move_shard"):
            if spec := body.get(kind):
                return result(request, self.copy_replica(name, spec, move=kind == "move_shard"))
        if spec := body.get("drop_replica"):
            shard = self.checked_shard(name, spec, "peer_id")
            peer = str(spec["peer_id"])
            if peer not in shard["replicas"]:
                raise bad_request(f"Shard {spec['shard_id']} has no replica on peer {peer}")
            if metadata.active_peers(shard) == [peer]:
                raise bad_request(f"Shard {spec['shard_id']} must have at least one active replica after removing {peer}")
            uid = self.node.state["collections"][name]["uid"]
            return result(request, self.propose(
                "set_replicas", name=name, uid=uid, shard_id=spec["shard_id"], replicas={peer: None}))
        if spec := body.get("abort_transfer"):
            return result(request, self.abort_transfer(name, spec))
        raise format_error("data did not match any variant of untagged enum ClusterOperations")

    def copy_replica(self, name: str, spec: Json, move: bool) -> bool:
        shard = self.checked_shard(name, spec, "from_peer_id", "to_peer_id")
        source, target = spec["from_peer_id"], spec["to_peer_id"]
        if str(source) not in shard["replicas"]:
            raise bad_request(f"Shard {spec['shard_id']} has no replica on peer {source}")
        request = {"name": name, "shard_id": spec["shard_id"], "source": source, "target": target,
                   "after": {str(source): None} if move else {}, "sync": not move}
        if str(target) in shard["replicas"]:
            raise bad_request(f"Shard {spec['shard_id']} is already present on peer {target}")
        if shard["replicas"][str(source)] != metadata.ACTIVE:
            raise bad_request(f"Shard {spec['shard_id']} is not active on peer {source}")
        if self.node.is_owner:
            return self.node.begin_transfer(**request)
        return self.node.client.call(self.node.owner_uri, "/internal/copy", request)

    def abort_transfer(self, name: str, spec: Json) -> bool:
        self.checked_shard(name, spec, "from_peer_id", "to_peer_id")
        wanted = (spec["shard_id"], spec["from_peer_id"], spec["to_peer_id"])
        for transfer in self.node.state["collections"][name]["transfers"]:
            if (transfer["shard_id"], transfer["from"], transfer["to"]) == wanted:
                return self.propose("abort_transfer", name=name, transfer=transfer["id"])
        raise not_found(f"Shard transfer for shard {wanted[0]} from peer {wanted[1]} to peer {wanted[2]} does not exist")

    def checked_shard(self, name: str, spec: Json, *peer_fields: str) -> Json:
        for field in ("shard_id", *peer_fields):
            if not isinstance(spec.get(field), int):
                raise format_error("data did not match any variant of untagged enum ClusterOperations")
        for field in reversed(peer_fields):
            if str(spec[field]) not in self.node.state["peers"]:
                raise bad_request(f"Peer {spec[field]} does not exist")
        shard = metadata.collection_of(self.node.state, name)["shards"].get(str(spec["shard_id"]))
        if shard is None:
            raise bad_request(f"Shard {spec['shard_id']} does not exist")
        return shard

    # --- points ---------------------------------------------------------------------------------------------------

    def updated(self, request: Request, outcome: Json) -> Response:
        status = "completed" if request.flag("wait", False) else "acknowledged"
        return result(request, {"operation_id": outcome["operation_id"], "status": status})

    def selected(self, kind: str) -> Callable[[Request], Response]:
        def handler(request: Request) -> Response:
            body = request.json()
            operation: Json = {"type": kind}
            if kind in ("set_payload", "overwrite_payload"):
                if not isinstance(body.get("payload"), dict):
                    raise format_error("missing field `payload`")
                operation |= {"payload": body["payload"], "key": body.get("key")}
            elif kind == "delete_payload":
                operation["keys"] = body.get("keys") or []
            elif kind == "delete_vectors":
                operation["vectors"] = body.get("vector") or []
            return self.updated(request, self.points.select_and_write(request.path[0], body, operation))
        return handler

    def point(self, request: Request) -> Response:
        name, raw = request.path
        wanted = point_id(int(raw) if raw.isdigit() else raw)
        found = self.points.retrieve(name, {"ids": [wanted], "with_vector": True})
        if not found:
            raise not_found(f"Point with id {wanted} does not exists!")
        return result(request, found[0])

    # --- snapshots ------------------------------------------------------------------------------------------------

    def waited(self, request: Request, work: Callable[[], Any]) -> Response:
        """Answers when the work is done, or at once with wait=false.

        The work runs to its end in either case: a handler's thread does not notice that its client has gone.
        """
        if request.flag("wait", True):
            return result(request, work())
        threading.Thread(target=logged, args=(work,), daemon=True).start()
        return accepted(request)

    def create_collection_snapshot(self, request: Request) -> Response:
        name = metadata.resolve(self.node.state, request.path[0])
        return self.waited(request, lambda: self.snapshots.create_collection(name))

    def create_shard_snapshot(self, request: Request) -> Response:
        name, shard_id = request.path[0], shard_number(request)
        self.node.local_shard(name, shard_id)
        return self.waited(request, lambda: self.snapshots.create_shard(name, shard_id))

    def stream_shard(self, request: Request) -> Response:
        """Packs the shard into an unlinked temporary file, so that a slow reader holds up no write."""
        name, shard_id = metadata.resolve(self.node.state, request.path[0]), shard_number(request)
        shard = self.node.local_shard(name, shard_id)
        with self.snapshots.running(self.snapshots.creating, name):
            path = self.snapshots.pack_shard(name, shard_id, shard)
        file = open(path, "rb")  # noqa: SIM115 - closed by the sender
        os.unlink(path)
        stamp = time.strftime("%Y-%m-%d-%H-%M-%S", time.gmtime())
        return chunked_response(file, {
            "content-type": "application/octet-stream",
            "content-disposition": f'attachment; filename="{name}-shard-{shard_id}-{stamp}.snapshot"'})

    def manifest(self, request: Request) -> Response:
        return result(request, self.node.local_shard(request.path[0], shard_number(request)).manifest())

    def recover_collection(self, request: Request) -> Response:
        body = request.json()
        return self.waited(request, lambda: self.snapshots.recover_collection(request.path[0], body))

    def recover_shard(self, request: Request) -> Response:
        name, shard_id, body = request.path[0], shard_number(request), request.json()
        self.node.local_shard(name, shard_id)
        return self.waited(request, lambda: self.snapshots.recover_shard(name, shard_id, body))

    def upload_collection(self, request: Request) -> Response:
        return self.uploaded(request, lambda path: self.snapshots.upload_collection(
            request.path[0], path, request.query.get("priority"), request.query.get("checksum")))

    def upload_shard(self, request: Request) -> Response:
        name, shard_id = request.path[0], shard_number(request)
        self.node.local_shard(name, shard_id)
        return self.uploaded(request, lambda path: self.snapshots.upload_shard(
            name, shard_id, path, request.query.get("priority"), request.query.get("checksum")))

    def uploaded(self, request: Request, work: Callable[[str], Any]) -> Response:
        path = self.snapshots.temporary_path()

        def run() -> Any:
            try:
                return work(path)
            finally:
                os.unlink(path)

        try:
            save_multipart(request, path)
        except BaseException:
            if os.path.exists(path):
                os.unlink(path)
            raise
        return self.waited(request, run)


def search_as_query(body: Json) -> Json:
    """The older search request as a query."""
    vector = body.get("vector")
    if isinstance(vector, dict) and "name" in vector:
        return {**body, "query": vector["vector"], "using": vector["name"]}
    return {**body, "query": vector}


def shard_number(request: Request) -> int:
    return integer(request.path[1])


def integer(raw: str) -> int:
    if not raw.isdigit():
        raise ApiError(400, f'Wrong input: cannot parse "{raw}" to a number')
    return int(raw)


def logged(work: Callable[[], Any]) -> None:
    try:
        work()
    except Exception as error:  # noqa: BLE001 - nobody waits for it; the log is all there is
        print(f"qdrant-node: a background task failed: {error}", flush=True)
