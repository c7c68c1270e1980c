"""GET /metrics: the part of Qdrant's gauges that operators read, in the same exposition format."""

import time

from metadata import ACTIVE
from node import Node
from snapshots import Snapshots


def metrics_text(node: Node, snapshots: Snapshots) -> str:
    state = node.state
    collections = state["collections"]
    points = {name: sum(shard.count() for shard in node.local_shards(name).values()) for name in collections}
    replicas = [shard["replicas"] for collection in collections.values() for shard in collection["shards"].values()]
    active = [sum(replica == ACTIVE for replica in shard.values()) for shard in replicas]
    me = node.peer_id

    def transfers(name: str, side: str) -> int:
        return sum(transfer[side] == me for transfer in collections[name]["transfers"])

    lines: list[str] = []

    def add(name: str, kind: str, about: str, values: list[tuple[str, object]]) -> None:
        if values:
            lines.extend([f"# HELP {name} {about}", f"# TYPE {name} {kind}"])
            lines.extend(f"{name}{labels} {value}" for labels, value in values)

    def per(values: dict[str, int]) -> list[tuple[str, object]]:
        return [(f'{{id="{name}"}}', values.get(name, 0)) for name in collections]

    add("app_info", "gauge", "information about qdrant server", [(f'{{name="qdrant",version="{node.settings.version}"}}', 1)])
    add("app_status_recovery_mode", "gauge", "features enabled in qdrant server", [("", 0)])
    add("collections_total", "gauge", "number of collections", [("", len(collections))])
    add("collections_vector_total", "gauge", "total number of vectors in all collections", [("", sum(points.values()))])
    add("collection_active_replicas_min", "gauge", "minimum number of active replicas across all shards",
        [("", min(active))] if active else [])
    add("collection_active_replicas_max", "gauge", "maximum number of active replicas across all shards",
        [("", max(active))] if active else [])
    add("collection_points", "gauge", "approximate amount of points per collection", per(points))
    add("collection_dead_replicas", "gauge", "total amount of shard replicas in non-active state",
        [("", sum(len(shard) for shard in replicas) - sum(active))])
    add("snapshot_creation_running", "gauge", "amount of snapshot creations that are currently running",
        per(snapshots.creating))
    add("snapshot_recovery_running", "gauge", "amount of snapshot recovery operations currently running",
        per(snapshots.recovering))
    add("snapshot_created_total", "counter", "total amount of snapshots created", per(snapshots.created))
    add("collection_shard_transfer_incoming", "gauge", "incoming shard transfers currently running",
        per({name: transfers(name, "to") for name in collections}))
    add("collection_shard_transfer_outgoing", "gauge", "outgoing shard transfers currently running",
        per({name: transfers(name, "from") for name in collections}))
    add("cluster_enabled", "gauge", "is cluster support enabled", [("", int(node.settings.clustered))])
    if node.settings.clustered:
        add("cluster_peers_total", "gauge", "total number of cluster peers", [("", len(state["peers"]))])
        add("cluster_term", "counter", "current cluster term", [("", 1)])
        add("cluster_commit", "counter", "index of last committed (finalized) operation cluster peer is aware of",
            [(f'{{peer_id="{me}"}}', state["version"])])
        add("cluster_pending_operations_total", "gauge", "total number of pending operations for cluster peer",
            [("", len(node.pending))])
        add("cluster_voter", "gauge", "is cluster peer a voter or learner", [("", 1)])
        add("cluster_last_update_timestamp_seconds", "counter", "unix timestamp of last update", [("", int(time.time()))])
    return "\n".join(lines) + "\n"
