"""A collection's configuration: what a create or update request turns into, in the shape Qdrant returns it."""

import copy
from typing import Any

from engine import DISTANCES, Json
from errors import ApiError, format_error

HNSW = {"m": 16, "ef_construct": 100, "full_scan_threshold": 10000, "max_indexing_threads": 0, "on_disk": False}
OPTIMIZER = {
    "deleted_threshold": 0.2, "vacuum_min_vector_number": 1000, "default_segment_number": 0, "max_segment_size": None,
    "memmap_threshold": None, "indexing_threshold": 10000, "flush_interval_sec": 5, "max_optimization_threads": None,
    "prevent_unoptimized": None,
}
WAL = {"wal_capacity_mb": 32, "wal_segments_ahead": 0, "wal_retain_closed": 1}
PARAMS_DIFF = ("replication_factor", "write_consistency_factor", "read_fan_out_factor", "read_fan_out_delay_ms",
               "on_disk_payload")


def check_name(name: str) -> None:
    if not name or len(name) > 255 or any(char in '<>:"/\\|?*\0\x1f' for char in name) or name in (".", ".."):
        raise ApiError(422, f"Validation error in path: collection name `{name}` contains a forbidden character")


def new_config(body: Json, peer_count: int) -> Json:
    vectors = body.get("vectors")
    if vectors is not None and not valid_vectors(vectors):
        raise format_error("data did not match any variant of untagged enum VectorsConfig")
    custom = body.get("sharding_method") == "custom"
    params: Json = {
        "vectors": strip(vectors) or {},
        "shard_number": positive(body, "shard_number", 1 if custom else peer_count),
        "replication_factor": positive(body, "replication_factor", 1),
        "write_consistency_factor": positive(body, "write_consistency_factor", 1),
        "on_disk_payload": body.get("on_disk_payload", True) is not False,
    }
    if body.get("sharding_method") is not None:
        params["sharding_method"] = body["sharding_method"]
    if body.get("sparse_vectors"):
        params["sparse_vectors"] = strip(body["sparse_vectors"])
    config: Json = {
        "params": params,
        "hnsw_config": {**HNSW, **strip(body.get("hnsw_config") or {})},
        "optimizer_config": {**OPTIMIZER, **strip(body.get("optimizers_config") or {})},
        "wal_config": {**WAL, **strip(body.get("wal_config") or {})},
        "quantization_config": strip(body.get("quantization_config")),
    }
    if body.get("strict_mode_config"):
        config["strict_mode_config"] = strip(body["strict_mode_config"])
    if body.get("metadata"):
        config["metadata"] = body["metadata"]
    return config


def updated_config(config: Json, body: Json) -> Json:
    config = copy.deepcopy(config)
    params = config["params"]
    changes = strip(body.get("params") or {})
    params.update({key: changes[key] for key in PARAMS_DIFF if key in changes})
    config["hnsw_config"].update(strip(body.get("hnsw_config") or {}))
    config["optimizer_config"].update(strip(body.get("optimizers_config") or {}))
    if body.get("quantization_config") is not None:
        value = body["quantization_config"]
        config["quantization_config"] = None if value == "Disabled" else strip(value)
    for name, diff in (body.get("vectors") or {}).items():
        spec = params["vectors"] if name == "" and "size" in params["vectors"] else params["vectors"].get(name)
        if spec is None:
            raise ApiError(400, f"Wrong input: Not existing vector name error: {name}")
        merge(spec, diff)
    for name, diff in (body.get("sparse_vectors") or {}).items():
        merge(params.setdefault("sparse_vectors", {}).setdefault(name, {}), diff)
    if body.get("strict_mode_config"):
        config.setdefault("strict_mode_config", {}).update(strip(body["strict_mode_config"]))
    if body.get("metadata") is not None:
        if body["metadata"]:
            config.setdefault("metadata", {}).update(body["metadata"])
        else:
            config.pop("metadata", None)
    return config


def valid_vectors(vectors: Any) -> bool:
    if not isinstance(vectors, dict):
        return False
    specs = [vectors] if "size" in vectors and not isinstance(vectors["size"], dict) else vectors.values()
    return all(
        isinstance(spec, dict) and isinstance(spec.get("size"), int) and spec["size"] > 0
        and spec.get("distance") in DISTANCES for spec in specs)


def positive(body: Json, key: str, default: int) -> int:
    value = body.get(key)
    if value is None:
        return default
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise ApiError(422, f"Validation error in JSON body: [{key}: value {value} invalid, must be 1 or larger]")
    return value


def strip(value: Any) -> Any:
    """Without nulls: an unset option and a null one are the same to Qdrant."""
    if isinstance(value, dict):
        return {key: strip(item) for key, item in value.items() if item is not None}
    return copy.deepcopy(value)


def merge(target: Json, diff: Any) -> None:
    for key, value in strip(diff or {}).items():
        if isinstance(value, dict) and isinstance(target.get(key), dict):
            merge(target[key], value)
        else:
            target[key] = value
