"""One local shard: the engine's folder, the current version of it, and the rules for replacing it.

1. `<folder>/current` names the subfolder with the data. It is replaced by an atomic rename, so after a crash in the
   middle of a recovery the shard is the old one or the new one.
2. Writes, snapshots and replacements hold `lock`. Reads do not: they take a reference to the engine object, which
   lives until its last reader is done, and version 0.9.0 of the library keeps Python's interpreter lock in every call.
3. An acknowledged write is in the engine's log (memory-mapped, so it outlives a killed process); `flush` makes it
   outlive the machine.
"""

import json
import os
import secrets
import shutil
import threading
from dataclasses import dataclass
from typing import Any, Callable

import qdrant_edge as edge

import tarball
from engine import Json, dense_vectors, engine_filter, engine_vector, payload_selector, plain_id, plain_record
from engine import schema_name, shard_config, update_operation
from errors import unavailable
from files import write_atomic


@dataclass(frozen=True)
class Prepared:
    """Unpacked and opened data that is not the shard's data yet."""

    path: str
    engine: Any


class LocalShard:
    def __init__(self, folder: str, params: Json, schema: Json):
        self.folder = folder
        self.params = params
        self.lock = threading.RLock()
        # Held by the primary replica while a write travels to the others, see points.py.
        self.write_order = threading.RLock()
        self.dirty = False
        self.removed = False
        # The number of the last write, as the answer to a write reports it.
        self.operation = 0
        # True if the folder was not there, so that this replica may lack points that others have.
        self.created = False
        self.schema = schema
        self._engine: Any = None

    @property
    def current(self) -> str | None:
        try:
            with open(os.path.join(self.folder, "current"), encoding="utf-8") as file:
                return os.path.join(self.folder, file.read().strip())
        except FileNotFoundError:
            return None

    def engine(self) -> Any:
        """The open engine shard; opens or creates it on first use."""
        engine = self._engine
        if engine is not None:
            return engine
        with self.lock:
            if self.removed:
                raise unavailable("the shard is closed or has left this peer")
            if self._engine is None:
                path = self.current
                if path is None:
                    self.created = True
                    path = self._fresh()
                    engine = self._create(path)
                    self._point_at(path)
                else:
                    self._sweep(path)
                    engine = edge.EdgeShard.load(path)
                self._engine = engine
                self.apply_schema(self.schema)
        return self._engine

    def apply_schema(self, schema: Json) -> None:
        """Creates the payload indexes of the collection that this shard lacks."""
        self.schema = schema
        if self._engine is None:
            return
        present = self._engine.info().payload_schema
        for field, spec in schema.items():
            if field not in present:
                self.update({"type": "create_index", "field": field, "schema": spec})

    def update(self, op: Json) -> None:
        operation = update_operation(op)
        with self.lock:
            self.engine().update(operation)
            self.dirty = True

    def flush(self) -> None:
        with self.lock:
            if self._engine is not None and self.dirty and not self.removed:
                self.dirty = False
                self._engine.flush()

    # --- reads ----------------------------------------------------------------------------------------------------

    def count(self, filter_spec: Json | None = None, exact: bool = True) -> int:
        return self.engine().count(edge.CountRequest(exact=exact, filter=engine_filter(filter_spec)))

    def describe(self) -> Json:
        info = self.engine().info()
        return {
            "points_count": info.points_count,
            "segments_count": info.segments_count,
            "indexed_vectors_count": info.indexed_vectors_count,
            "payload_schema": {
                field: {"data_type": schema_name(index.data_type), "points": index.points}
                for field, index in info.payload_schema.items()
            },
        }

    def read(self, request: Json) -> Any:
        kind = request["type"]
        if kind == "count":
            return self.count(request.get("filter"), request.get("exact", True))
        if kind == "describe":
            return self.describe()
        if kind == "facet":
            hits = self.engine().facet(edge.FacetRequest(
                request["key"], limit=1 << 30, exact=True, filter=engine_filter(request.get("filter"))))
            return [{"value": hit.value, "count": hit.count} for hit in hits]
        payload, vector = request.get("with_payload"), request.get("with_vector")
        options = {"with_payload": payload_selector(payload), "with_vector": vector}
        if kind == "retrieve":
            records = self.engine().retrieve(request["ids"], **options)
            return [plain_record(record, payload, vector) for record in records]
        if kind == "scroll":
            records, _ = self.engine().scroll(edge.ScrollRequest(
                offset=request.get("offset"), limit=request["limit"],
                filter=engine_filter(request.get("filter")), order_by=order_by(request.get("order_by")), **options))
            return [{**plain_record(record, payload, vector), "order_value": record.order_value} for record in records]
        if kind == "query":
            params = request.get("params") or {}
            found = self.engine().query(edge.QueryRequest(
                limit=request["limit"],
                query=edge.Query.Nearest(engine_vector(request["vector"]), request.get("using") or None),
                filter=engine_filter(request.get("filter")),
                score_threshold=request.get("score_threshold"),
                params=edge.SearchParams(exact=bool(params.get("exact")), hnsw_ef=params.get("hnsw_ef")), **options))
            return [{"id": plain_id(hit.id), "version": hit.version, "score": hit.score,
                     **{key: value for key, value in plain_record(hit, payload, vector).items() if key != "id"}}
                    for hit in found]
        raise ValueError(f"unknown read {kind}")

    def manifest(self) -> Any:
        with self.lock:
            return self.engine().snapshot_manifest()

    # --- snapshots ------------------------------------------------------------------------------------------------

    def pack(self, prefix: str, replica_state: bytes, use: Callable[[list[tarball.Entry]], None]) -> None:
        """Calls `use` with the members of a snapshot of this moment; writes wait until it returns."""
        with self.lock:
            self.engine().flush()
            self.dirty = False
            path = self.current
            assert path is not None
            use(tarball.shard_entries(path, prefix, replica_state))

    def prepare(self, archive: str, prefix: str = "") -> "Prepared | None":
        """Unpacks and opens an archive beside the current data; None if it holds no data for this shard.

        A snapshot of another vector layout becomes an empty shard: Qdrant answers `true` to that, too.
        """
        path = self._fresh()
        try:
            if not tarball.unpack(archive, path, prefix):
                shutil.rmtree(path, ignore_errors=True)
                return None
            engine = edge.EdgeShard.load(path)
            if vector_layout(path) != expected_layout(self.params):
                engine.close()
                shutil.rmtree(path)
                engine = self._create(path)
            engine.flush()
        except BaseException:
            shutil.rmtree(path, ignore_errors=True)
            raise
        return Prepared(path, engine)

    def replace(self, prepared: "Prepared") -> None:
        """Makes prepared data the shard's data."""
        with self.lock:
            if self.removed:
                raise unavailable("the shard is closed or has left this peer")
            old = self.current
            self._point_at(prepared.path)
            self._engine = prepared.engine
            self.created = False
            self.dirty = True
            self.apply_schema(self.schema)
            if old is not None:
                shutil.rmtree(old, ignore_errors=True)

    def remove(self) -> None:
        with self.lock:
            self.removed = True
            self._engine = None
            shutil.rmtree(self.folder, ignore_errors=True)

    def close(self) -> None:
        with self.lock:
            # First, so that a reader whose engine closes under it is told to look elsewhere.
            self.removed = True
            if self._engine is not None:
                self._engine.flush()
                self._engine.close()
                self._engine = None

    def _create(self, path: str) -> Any:
        os.makedirs(path, exist_ok=True)
        return edge.EdgeShard.create(path, shard_config(self.params))

    def _fresh(self) -> str:
        path = os.path.join(self.folder, f"data-{secrets.token_hex(6)}")
        os.makedirs(path)
        return path

    def _point_at(self, path: str) -> None:
        write_atomic(os.path.join(self.folder, "current"), os.path.basename(path).encode())

    def _sweep(self, keep: str) -> None:
        """Drops what a crash in the middle of a recovery left behind."""
        for name in os.listdir(self.folder):
            path = os.path.join(self.folder, name)
            if name.startswith("data-") and path != keep:
                shutil.rmtree(path, ignore_errors=True)


def vector_layout(path: str) -> Json:
    with open(os.path.join(path, "edge_config.json"), encoding="utf-8") as file:
        config = json.load(file)
    return {
        "dense": {name: (spec["size"], spec["distance"]) for name, spec in (config.get("vectors") or {}).items()},
        "sparse": sorted(config.get("sparse_vectors") or {}),
    }


def expected_layout(params: Json) -> Json:
    return {
        "dense": {name: (spec["size"], spec["distance"]) for name, spec in dense_vectors(params).items()},
        "sparse": sorted(params.get("sparse_vectors") or {}),
    }


def order_by(spec: Any) -> Any:
    if spec is None:
        return None
    if isinstance(spec, str):
        return edge.OrderBy(spec)
    direction = edge.Direction.Desc if spec.get("direction") == "desc" else edge.Direction.Asc
    return edge.OrderBy(spec["key"], direction=direction, start_from=spec.get("start_from"))
