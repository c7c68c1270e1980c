"""The flags and environment variables of a Qdrant process that this double honours, read once."""

import argparse
import os
import sys
from dataclasses import dataclass
from urllib.parse import urlsplit

from tls import TlsFiles


# The version that this node was recorded from.
DEFAULT_VERSION = "1.18.3"


@dataclass(frozen=True)
class Settings:
    host: str
    http_port: int
    p2p_port: int
    storage_path: str
    snapshots_path: str
    api_key: str | None
    alt_api_key: str | None
    read_only_api_key: str | None
    clustered: bool
    uri: str | None
    bootstrap: str | None
    # How long a joining peer keeps asking its bootstrap peer before it gives up, in seconds.
    bootstrap_timeout: float
    # Test hooks: how long a snapshot creation or a recovery is held up before it becomes visible.
    snapshot_delay: float
    recovery_delay: float
    # Test hook: how long a shard transfer stays visible before its data travels.
    transfer_delay: float
    # What the node says it is: the kubelet of the local stack passes on the version of the image tag.
    version: str
    # Certificate files, where the port has TLS.
    service_tls: TlsFiles | None
    p2p_tls: TlsFiles | None
    # By which name peers have to show themselves; default: the host that they are called by.
    peer_name: str | None


def read_settings(argv: list[str]) -> Settings:
    parser = argparse.ArgumentParser(prog="qdrant-node")
    parser.add_argument("--uri")
    parser.add_argument("--bootstrap")
    # Accepted because real command lines carry them; they change nothing here.
    parser.add_argument("--config-path")
    parser.add_argument("--disable-telemetry", action="store_true")
    args = parser.parse_args(argv)
    env = os.environ
    enabled = is_on(env.get("QDRANT__CLUSTER__ENABLED"))
    service_tls, p2p_tls = is_on(env.get("QDRANT__SERVICE__ENABLE_TLS")), is_on(env.get("QDRANT__CLUSTER__P2P__ENABLE_TLS"))
    files = tls_files() if service_tls or p2p_tls else None
    if enabled and not args.uri and not args.bootstrap:
        print("qdrant-node: cluster is enabled, but neither --uri nor --bootstrap is given", file=sys.stderr)
        raise SystemExit(1)
    # A wrong value of a setting that means nothing here ends the process all the same, as Qdrant's does.
    int(env.get("QDRANT__SERVICE__MAX_REQUEST_SIZE_MB", "32"))
    # Qdrant sets a whole segment of the log aside for every shard; this much is on no disk of a test.
    if int(env.get("QDRANT__STORAGE__WAL__WAL_CAPACITY_MB", "32")) >= 4096:
        raise SystemExit("qdrant-node: a WAL segment of 4 GiB does not fit on the disk")
    host = env.get("QDRANT__SERVICE__HOST", "127.0.0.1")
    p2p_port = int(env.get("QDRANT__CLUSTER__P2P__PORT", "6335"))
    return Settings(
        host=host,
        http_port=int(env.get("QDRANT__SERVICE__HTTP_PORT", "6333")),
        p2p_port=p2p_port,
        storage_path=os.path.abspath(env.get("QDRANT__STORAGE__STORAGE_PATH", "./storage")),
        snapshots_path=os.path.abspath(env.get("QDRANT__STORAGE__SNAPSHOTS_PATH", "./snapshots")),
        api_key=env.get("QDRANT__SERVICE__API_KEY") or None,
        alt_api_key=env.get("QDRANT__SERVICE__ALT_API_KEY") or None,
        read_only_api_key=env.get("QDRANT__SERVICE__READ_ONLY_API_KEY") or None,
        clustered=enabled,
        uri=normal_uri(args.uri or f"http://{host}:{p2p_port}") if enabled else None,
        bootstrap=normal_uri(args.bootstrap) if enabled and args.bootstrap else None,
        bootstrap_timeout=float(env.get("FLEET_QDRANT_NODE_BOOTSTRAP_TIMEOUT_MS", "60000")) / 1000,
        snapshot_delay=float(env.get("FLEET_QDRANT_NODE_SNAPSHOT_DELAY_MS", "0")) / 1000,
        recovery_delay=float(env.get("FLEET_QDRANT_NODE_RECOVERY_DELAY_MS", "0")) / 1000,
        transfer_delay=float(env.get("FLEET_QDRANT_NODE_TRANSFER_DELAY_MS", "0")) / 1000,
        version=env.get("FLEET_QDRANT_NODE_VERSION") or DEFAULT_VERSION,
        service_tls=files if service_tls else None,
        p2p_tls=files if p2p_tls else None,
        peer_name=env.get("FLEET_QDRANT_NODE_PEER_NAME") or None,
    )


def is_on(value: str | None) -> bool:
    return (value or "").lower() in ("true", "1")


def tls_files() -> TlsFiles:
    env = os.environ
    cert, key = env.get("QDRANT__TLS__CERT"), env.get("QDRANT__TLS__KEY")
    if not cert or not key:
        print("qdrant-node: TLS config is not defined in the Qdrant config file", file=sys.stderr)
        raise SystemExit(1)
    return TlsFiles(cert, key, env.get("QDRANT__TLS__CA_CERT") or None, float(env.get("QDRANT__TLS__CERT_TTL", "3600")))


def normal_uri(uri: str) -> str:
    """`http://host:port/`, the form in which Qdrant lists its peers."""
    parts = urlsplit(uri)
    return f"{parts.scheme}://{parts.netloc}/"
