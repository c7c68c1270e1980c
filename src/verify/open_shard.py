"""Opens one shard snapshot with Qdrant's own storage engine and reports what is in it.

    python open_shard.py <snapshot file> <empty folder> [<seed> <number of points>]

Prints one JSON object: {"points": 1852, "indexes": ["document_id", ...]}, and with a seed also "sample": points that
the seed chooses, each with its id as text and the digest of its payload and vectors. Ends with status 1 and a line on
standard error when the engine cannot open it. Runs in a process of its own, because a damaged file may take the engine,
and the process with it, down.
"""

import hashlib
import heapq
import json
import os
import sys
from typing import Any, Iterator

import qdrant_edge as edge

from point_digest import digest

PAGE = 10_000
# JSON readers round larger numbers, so such a point could not be asked for by its id.
LARGEST_ID = 2**53 - 1


def main(snapshot: str, folder: str, seed: str | None = None, count: str = "0") -> int:
    target = os.path.join(folder, "shard")
    os.makedirs(target)
    edge.EdgeShard.unpack_snapshot(snapshot, target)
    shard = edge.EdgeShard.load(target)
    try:
        found: dict[str, Any] = {
            "points": shard.count(edge.CountRequest(exact=True)),
            "indexes": sorted(str(name) for name in (shard.info().payload_schema or {})),
        }
        if seed is not None:
            found["sample"] = sample(shard, seed, int(count))
    finally:
        shard.close()
    print(json.dumps(found))
    return 0


def sample(shard: Any, seed: str, count: int) -> list[dict[str, str]]:
    """The points whose ids, hashed with the seed, come first: the same ones in whatever order they are stored."""
    def rank(value: Any) -> bytes:
        return hashlib.sha256(f"{seed}:{value}".encode()).digest()

    chosen = heapq.nsmallest(count, ids(shard), key=rank)
    records = shard.retrieve([value if isinstance(value, int) else str(value) for value in chosen],
                             with_payload=True, with_vector=True) if chosen else []
    return sorted(({"id": str(record.id), "sha256": digest(record.payload, record.vector)} for record in records),
                  key=lambda point: point["id"])


def ids(shard: Any) -> Iterator[Any]:
    offset = None
    while True:
        records, offset = shard.scroll(edge.ScrollRequest(
            offset=offset, limit=PAGE, with_payload=False, with_vector=False))
        for record in records:
            if not isinstance(record.id, int) or record.id <= LARGEST_ID:
                yield record.id
        if offset is None:
            return


if __name__ == "__main__":
    try:
        sys.exit(main(*sys.argv[1:]))
    except Exception as error:  # noqa: BLE001 - whatever the engine throws is the answer
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        sys.exit(1)
