"""Points across shards: which shard, which replica, and how the answers of several shards become one.

A shard's primary is its Active replica with the lowest peer id. Every write of the shard goes through it, in the order
in which it takes `write_order`, so that all replicas apply the same writes in the same order.
"""

import sys
import time
import uuid
from typing import Any, Iterable

import metadata
from engine import Json, check_vector, dense_vectors, id_order, pack_vector, point_id
from errors import ApiError, bad_request, format_error, internal, no_collection, not_found, unavailable
from errors import wrong_input
from node import Node, parallel
from peers import PeerUnreachable

NOT_PRIMARY = 421
NOT_HERE = 421
WRITE_TIMEOUT = 60.0
READ_TIMEOUT = 60.0
MOVED_TIMEOUT = 10.0


class Points:
    def __init__(self, node: Node):
        self.node = node

    # --- routing --------------------------------------------------------------------------------------------------

    def shard_ids(self, collection: Json, selector: Any) -> list[int]:
        """The shards that a shard key selector (or none) stands for."""
        shards = collection["shards"]
        if selector is None:
            return sorted(map(int, shards))
        if isinstance(selector, dict):
            selector = [selector.get("target"), selector.get("fallback")]
        keys = selector if isinstance(selector, list) else [selector]
        for key in keys:
            if key not in collection["keys"]:
                raise not_found(f"Shard key {key} not found")
        return sorted(int(shard_id) for shard_id, shard in shards.items() if shard["key"] in keys)

    def write_shards(self, collection: Json, selector: Any) -> list[int]:
        if selector is None and collection["config"]["params"].get("sharding_method") == "custom":
            raise bad_request("Shard key not specified")
        shards = self.shard_ids(collection, selector)
        if not shards:
            raise bad_request("Shard key not specified")
        return shards

    def split(self, shards: list[int], items: Iterable[Any], key: Any) -> dict[int, list[Any]]:
        parts: dict[int, list[Any]] = {}
        for item in items:
            parts.setdefault(shards[hash_id(key(item)) % len(shards)], []).append(item)
        return parts

    # --- writes ---------------------------------------------------------------------------------------------------

    def upsert(self, name: str, body: Json, kind: str = "upsert") -> Json:
        collection = metadata.collection_of(self.node.state, name)
        params = collection["config"]["params"]
        points = []
        for point in listed_points(body):
            if not isinstance(point, dict) or "id" not in point or "vector" not in point:
                raise format_error("missing field `id` or `vector` of a point")
            check_vector(params, point["vector"])
            points.append({"id": point_id(point["id"]), "vector": pack_vector(point["vector"]),
                           "payload": point.get("payload")})
        shards = self.write_shards(collection, body.get("shard_key"))
        parts = self.split(shards, points, lambda point: point["id"])
        return self.write(name, {shard: {"type": kind, "points": part} for shard, part in parts.items()})

    def select_and_write(self, name: str, body: Json, operation: Json) -> Json:
        """A write on `points` or on what matches `filter`."""
        collection = metadata.collection_of(self.node.state, name)
        shards = self.write_shards(collection, body.get("shard_key"))
        if isinstance(body.get("points"), list):
            parts = self.split(shards, [point_id(value) for value in body["points"]], lambda value: value)
            return self.write(name, {shard: {**operation, "ids": ids} for shard, ids in parts.items()})
        if isinstance(body.get("filter"), dict):
            return self.write(name, {shard: {**operation, "filter": body["filter"]} for shard in shards})
        raise format_error("data did not match any variant of untagged enum PointsSelector")

    def write(self, name: str, operations: dict[int, Json]) -> Json:
        name = metadata.resolve(self.node.state, name)
        versions = parallel([lambda shard=shard, op=op: self.write_shard(name, shard, op)
                             for shard, op in operations.items()])
        return {"operation_id": max(versions, default=0), "status": "completed"}

    def write_shard(self, name: str, shard_id: int, operation: Json) -> int:
        """Sends a write to the shard's primary, which may change meanwhile."""
        node = self.node
        deadline = time.monotonic() + WRITE_TIMEOUT
        while True:
            collection = node.state["collections"].get(name)
            if collection is None:
                raise no_collection(name)
            active = metadata.active_peers(metadata.shard_of(collection, shard_id))
            if not active:
                raise internal(f"The replica set for shard {shard_id} on peer {node.peer_id} has no active replica")
            request = {"name": name, "uid": collection["uid"], "shard_id": shard_id, "operation": operation}
            try:
                if active[0] == str(node.peer_id):
                    return self.write_as_primary(request)
                return node.client.call(node.uri_of(active[0]), "/internal/write", request, timeout=WRITE_TIMEOUT)
            except PeerUnreachable:
                node.mark_dead(name, shard_id, active[0])
            except ApiError as error:
                if error.status not in (NOT_PRIMARY, 503) or node.stopping.is_set() or time.monotonic() > deadline:
                    raise
                time.sleep(0.02)

    def write_as_primary(self, request: Json) -> int:
        node, name, shard_id = self.node, request["name"], request["shard_id"]
        shard = node.shards.get((request["uid"], shard_id))
        if shard is None:
            raise ApiError(NOT_PRIMARY, "this peer does not hold the shard")
        with shard.write_order:
            collection = node.state["collections"].get(name)
            if collection is None or collection["uid"] != request["uid"]:
                raise no_collection(name)
            active = self.settled_replicas(name, collection, shard_id)
            if not active or active[0] != str(node.peer_id):
                raise ApiError(NOT_PRIMARY, "this peer is not the shard's primary")
            shard.operation = max(shard.operation, collection["operation"]) + 1
            apply_operation(shard, request["operation"])
            parallel([lambda peer=peer: self.forward(peer, request) for peer in active[1:]])
            return shard.operation

    def settled_replicas(self, name: str, collection: Json, shard_id: int) -> list[str]:
        """The Active replicas, after those that would come before this peer as primary are known to be there.

        The caller may have found one of them gone while the owner, who tells the others, is gone as well.
        """
        node = self.node
        active = metadata.active_peers(metadata.shard_of(collection, shard_id))
        if str(node.peer_id) in active:
            for peer in active[: active.index(str(node.peer_id))]:
                if not node.reachable(peer):
                    node.mark_dead(name, shard_id, peer)
        collection = node.state["collections"].get(name)
        return [] if collection is None else metadata.active_peers(metadata.shard_of(collection, shard_id))

    def forward(self, peer: str, request: Json) -> None:
        node = self.node
        try:
            node.client.call(node.uri_of(peer), "/internal/replicate", request, timeout=WRITE_TIMEOUT)
        except (PeerUnreachable, KeyError) as error:
            node.mark_dead(request["name"], request["shard_id"], peer)
            print(f"qdrant-node: replica {peer} declared dead: {error}", file=sys.stderr)
        except ApiError as error:
            if error.status >= 500:
                node.mark_dead(request["name"], request["shard_id"], peer)
                return
            raise

    def replicate(self, request: Json) -> bool:
        shard = self.node.shards.get((request["uid"], request["shard_id"]))
        if shard is None:
            raise internal("this peer does not hold the shard")
        apply_operation(shard, request["operation"])
        return True

    # --- reads ----------------------------------------------------------------------------------------------------

    def read(self, name: str, shard_id: int, request: Json) -> Any:
        """Reads from the local replica if it is Active, else from the first Active one that answers.

        A shard that has just moved may be gone from where it was looked for: it is looked for again then.
        """
        node = self.node
        deadline = time.monotonic() + MOVED_TIMEOUT
        while True:
            collection = metadata.collection_of(node.state, name)
            active = metadata.active_peers(metadata.shard_of(collection, shard_id))
            active.sort(key=lambda peer: peer != str(node.peer_id))
            moved = False
            for peer in active:
                try:
                    if peer != str(node.peer_id):
                        return node.client.call(node.uri_of(peer), "/internal/read", {
                            "uid": collection["uid"], "shard_id": shard_id, "request": request}, timeout=READ_TIMEOUT)
                    shard = node.shards.get((collection["uid"], shard_id))
                    if shard is not None:
                        return read_shard(shard, request)
                    moved = True
                except (PeerUnreachable, KeyError):
                    continue
                except ApiError as error:
                    if error.status not in (NOT_HERE, 503):
                        raise
                    moved = True
            if not moved or time.monotonic() > deadline:
                raise internal(
                    f"The replica set for shard {shard_id} on peer {node.peer_id} has no active replica that answers")
            time.sleep(0.02)

    def read_all(self, name: str, shard_ids: list[int], request: Json) -> list[Any]:
        return parallel([lambda shard=shard: self.read(name, shard, request) for shard in shard_ids])

    def describe(self, name: str) -> Json:
        """The figures of GET /collections/{name}, summed over one replica of each shard."""
        collection = metadata.collection_of(self.node.state, name)
        parts = self.read_all(name, self.shard_ids(collection, None), {"type": "describe"})
        schema: Json = {}
        for part in parts:
            for field, index in part["payload_schema"].items():
                known = schema.setdefault(field, {"data_type": index["data_type"], "points": 0})
                known["points"] += index["points"]
        for field, spec in collection["payload_schema"].items():
            kind = spec["type"] if isinstance(spec, dict) else spec
            known = schema.setdefault(field, {"data_type": kind, "points": 0})
            if isinstance(spec, dict):
                schema[field] = {"data_type": known["data_type"], "params": spec, "points": known["points"]}
        return {
            **{key: sum(part[key] for part in parts)
               for key in ("indexed_vectors_count", "points_count", "segments_count")},
            "payload_schema": schema,
        }

    def count(self, name: str, body: Json) -> Json:
        collection = metadata.collection_of(self.node.state, name)
        request = {"type": "count", "filter": body.get("filter"), "exact": body.get("exact", True)}
        return {"count": sum(self.read_all(name, self.shard_ids(collection, body.get("shard_key")), request))}

    def retrieve(self, name: str, body: Json) -> list[Json]:
        collection = metadata.collection_of(self.node.state, name)
        if not isinstance(body.get("ids"), list):
            raise format_error("missing field `ids`")
        ids = [point_id(value) for value in body["ids"]]
        request = {"type": "retrieve", "with_payload": body.get("with_payload", True),
                   "with_vector": body.get("with_vector", False)}
        shards = self.shard_ids(collection, body.get("shard_key"))
        if collection["config"]["params"].get("sharding_method") == "custom":
            parts = {shard: ids for shard in shards}
        else:
            parts = self.split(shards, ids, lambda value: value)
        answers = parallel([lambda shard=shard, part=part: self.read(name, shard, {**request, "ids": part})
                            for shard, part in parts.items()])
        found = {record["id"]: record for answer in answers for record in answer}
        return [found[value] for value in ids if value in found]

    def scroll(self, name: str, body: Json) -> Json:
        collection = metadata.collection_of(self.node.state, name)
        limit = body.get("limit") or 10
        order = body.get("order_by")
        offset = point_id(body["offset"]) if body.get("offset") is not None else None
        request = {"type": "scroll", "offset": offset, "limit": limit + (0 if order else 1), "order_by": order,
                   "filter": body.get("filter"), "with_payload": body.get("with_payload", True),
                   "with_vector": body.get("with_vector", False)}
        parts = self.read_all(name, self.shard_ids(collection, body.get("shard_key")), request)
        records = [record for part in parts for record in part]
        if order:
            backwards = isinstance(order, dict) and order.get("direction") == "desc"
            records.sort(key=lambda record: record["order_value"], reverse=backwards)
            return {"points": records[:limit], "next_page_offset": None}
        records.sort(key=lambda record: id_order(record["id"]))
        for record in records:
            record.pop("order_value", None)
        following = records[limit]["id"] if len(records) > limit else None
        return {"points": records[:limit], "next_page_offset": following}

    def query(self, name: str, body: Json) -> list[Json]:
        collection = metadata.collection_of(self.node.state, name)
        if body.get("prefetch"):
            raise bad_request("this node does not do prefetch")
        using = body.get("using") or ""
        limit, offset = body.get("limit") or 10, body.get("offset") or 0
        vector, excluded = self.query_vector(name, body, using)
        if vector is None:
            page = self.scroll(name, {**body, "limit": limit + offset, "offset": None,
                                      "with_payload": body.get("with_payload", False)})
            return [{"id": record.pop("id"), "version": 0, "score": 0.0, **record}
                    for record in page["points"][offset:]]
        params = collection["config"]["params"]
        check_vector(params, {using: vector} if using else vector)
        request = {"type": "query", "vector": vector, "using": using, "filter": body.get("filter"),
                   "limit": limit + offset + len(excluded), "params": body.get("params"),
                   "score_threshold": body.get("score_threshold"), "with_payload": body.get("with_payload", False),
                   "with_vector": body.get("with_vector", False)}
        parts = self.read_all(name, self.shard_ids(collection, body.get("shard_key")), request)
        hits = [hit for part in parts for hit in part if hit["id"] not in excluded]
        distance = dense_vectors(params).get(using, {}).get("distance")
        hits.sort(key=lambda hit: hit["score"], reverse=distance not in ("Euclid", "Manhattan"))
        return hits[offset : offset + limit]

    def query_vector(self, name: str, body: Json, using: str) -> tuple[Any, set[Any]]:
        """The vector of a nearest query (None for a query without one), and the ids to leave out."""
        query = body.get("query")
        if isinstance(query, dict) and "nearest" in query:
            query = query["nearest"]
        if query is None or isinstance(query, list):
            return query, set()
        if isinstance(query, dict):
            if "indices" in query:
                return query, set()
            raise bad_request(f"this node only does nearest queries, not {', '.join(query)}")
        wanted = point_id(query)
        found = self.retrieve(name, {"ids": [wanted], "with_payload": False, "with_vector": True})
        if not found:
            raise not_found(f"No point with id {wanted} found")
        vector = found[0]["vector"]
        if using:
            vector = vector.get(using)
        if vector is None:
            raise wrong_input(f"Point {wanted} has no vector {using}")
        return vector, {wanted}

    def facet(self, name: str, body: Json) -> Json:
        collection = metadata.collection_of(self.node.state, name)
        request = {"type": "facet", "key": body["key"], "filter": body.get("filter")}
        totals: dict[Any, int] = {}
        for part in self.read_all(name, self.shard_ids(collection, body.get("shard_key")), request):
            for hit in part:
                totals[hit["value"]] = totals.get(hit["value"], 0) + hit["count"]
        ranked = sorted(totals.items(), key=lambda item: (-item[1], str(item[0])))[: body.get("limit") or 10]
        return {"hits": [{"value": value, "count": count} for value, count in ranked]}


def apply_operation(shard: Any, operation: Json) -> None:
    try:
        shard.update(operation)
    except ApiError:
        raise
    except Exception as error:  # noqa: BLE001 - the engine raises bare Exception for refused input
        if shard.removed:
            raise unavailable("the shard is closed or has left this peer") from error
        raise wrong_input(str(error)) from error


def read_shard(shard: Any, request: Json) -> Any:
    try:
        return shard.read(request)
    except ApiError:
        raise
    except Exception as error:  # noqa: BLE001 - the engine raises bare Exception for refused input
        if shard.removed:
            raise unavailable("the shard is closed or has left this peer") from error
        raise wrong_input(str(error)) from error


def listed_points(body: Json) -> list[Any]:
    """The points of an upsert, in its list or its batch form."""
    if isinstance(body.get("points"), list):
        return body["points"]
    batch = body.get("batch")
    if not isinstance(batch, dict) or not isinstance(batch.get("ids"), list):
        raise format_error("data did not match any variant of untagged enum PointInsertOperations")
    ids, payloads = batch["ids"], batch.get("payloads") or [None] * len(batch["ids"])
    vectors = batch.get("vectors")
    if isinstance(vectors, dict):
        names = list(vectors)
        vectors = [dict(zip(names, row)) for row in zip(*vectors.values())]
    if not isinstance(vectors, list) or len(vectors) != len(ids) or len(payloads) != len(ids):
        raise bad_request("number of ids, vectors and payloads must match")
    return [{"id": i, "vector": v, "payload": p} for i, v, p in zip(ids, vectors, payloads)]


def hash_id(value: int | str) -> int:
    number = value if isinstance(value, int) else uuid.UUID(value).int
    return ((number * 0x9E3779B97F4A7C15 + (number >> 64)) & 0xFFFFFFFFFFFFFFFF) >> 32
