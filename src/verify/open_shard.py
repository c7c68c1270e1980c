"""Opens one shard snapshot with Qdrant's own storage engine and reports what is in it.

    python open_shard.py <snapshot file> <empty folder>

Prints one JSON object: {"points": 1852, "indexes": ["document_id", ...]}. Ends with status 1 and a line on standard
error when the engine cannot open it. Runs in a process of its own, because a damaged file may take the engine, and the
process with it, down.
"""

import json
import os
import sys

import qdrant_edge as edge


def main(snapshot: str, folder: str) -> int:
    target = os.path.join(folder, "shard")
    os.makedirs(target)
    edge.EdgeShard.unpack_snapshot(snapshot, target)
    shard = edge.EdgeShard.load(target)
    try:
        points = shard.count(edge.CountRequest(exact=True))
        indexes = sorted(str(name) for name in (shard.info().payload_schema or {}))
    finally:
        shard.close()
    print(json.dumps({"points": points, "indexes": indexes}))
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1], sys.argv[2]))
    except Exception as error:  # noqa: BLE001 - whatever the engine throws is the answer
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        sys.exit(1)
