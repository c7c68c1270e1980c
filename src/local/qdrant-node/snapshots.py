"""Snapshots on this node: create, describe, recover; and the copy of a shard from one peer to another.

1. A snapshot file appears under its name only when it is complete and its `.checksum` sidecar exists.
2. Temporary files live in `<snapshots>/tmp`, which is emptied at start.
3. Nothing is held in memory: archives are written, hashed and unpacked in pieces.
"""

import hashlib
import json
import os
import re
import shutil
import tarfile
import threading
import time
import urllib.parse
from contextlib import contextmanager
from typing import BinaryIO, Iterator

import metadata
import tarball
from engine import Json
from errors import ApiError, bad_request, forbidden, internal, not_found, wrong_input
from files import write_atomic
from metadata import ACTIVE, DEAD
from node import Node
from shard import LocalShard
from tls import download_context

class Snapshots:
    def __init__(self, node: Node):
        self.node = node
        self.root = node.settings.snapshots_path
        self.temporary = os.path.join(self.root, "tmp")
        shutil.rmtree(self.temporary, ignore_errors=True)
        os.makedirs(self.temporary)
        self.creating: dict[str, int] = {}
        self.recovering: dict[str, int] = {}
        self.created: dict[str, int] = {}
        self._lock = threading.Lock()
        self._serial = 0
        node.send_shard = self.send_shard

    # --- where snapshots are --------------------------------------------------------------------------------------

    def collection_folder(self, name: str) -> str:
        return os.path.join(self.root, metadata.resolve(self.node.state, name))

    def shard_folder(self, name: str, shard_id: int) -> str:
        return os.path.join(self.collection_folder(name), "shards", str(shard_id))

    def list(self, folder: str) -> list[Json]:
        if not os.path.isdir(folder):
            return []
        with self._lock:
            return [describe(os.path.join(folder, name)) for name in sorted(os.listdir(folder))
                    if name.endswith(".snapshot") and os.path.isfile(os.path.join(folder, name))]

    def find(self, folder: str, name: str) -> str:
        if not os.path.isdir(folder):
            raise not_found(f"Snapshot directory: {folder} not found")
        path = os.path.join(folder, name)
        if os.sep in name or not os.path.isfile(path):
            raise not_found(f"Snapshot {name} not found")
        return path

    def delete(self, folder: str, name: str) -> bool:
        path = os.path.join(folder, name)
        if os.sep in name or not os.path.isfile(path):
            raise not_found(f'Snapshot "{path}" not found')
        with self._lock:
            os.unlink(path)
            if os.path.exists(path + ".checksum"):
                os.unlink(path + ".checksum")
        return True

    # --- create ---------------------------------------------------------------------------------------------------

    def create_shard(self, name: str, shard_id: int) -> Json:
        name = metadata.resolve(self.node.state, name)
        shard = self.node.local_shard(name, shard_id)
        with self.running(self.creating, name):
            path = self.pack_shard(name, shard_id, shard)
            return self.publish(name, path, self.shard_folder(name, shard_id), f"{name}-shard-{shard_id}")

    def create_collection(self, name: str) -> Json:
        name = metadata.resolve(self.node.state, name)
        with self.running(self.creating, name):
            path = self.pack_collection(name)
            return self.publish(name, path, self.collection_folder(name), f"{name}-{self.node.peer_id}")

    def create_full(self) -> Json:
        """All local collections and the aliases in one archive."""
        parts = {name: self.pack_collection(name) for name in sorted(self.node.state["collections"])}
        config = {"collections_mapping": {name: f"{name}.snapshot" for name in parts},
                  "collections_aliases": self.node.state["aliases"]}
        entries = [tarball.file_entry(f"{name}.snapshot", path) for name, path in parts.items()]
        entries.append(tarball.bytes_entry("config.json", json.dumps(config).encode()))
        path = self.temporary_path()
        with open(path, "wb") as out:
            tarball.write_archive(entries, out.write)
        for part in parts.values():
            os.unlink(part)
        return self.publish("", path, self.root, "full-snapshot")

    def pack_shard(self, name: str, shard_id: int, shard: LocalShard) -> str:
        """Writes the archive of one shard to a temporary file."""
        path = self.temporary_path()
        with open(path, "wb") as out:
            shard.pack("", self.replica_state(name, shard_id), lambda entries: tarball.write_archive(entries, out.write))
        return path

    def pack_collection(self, name: str) -> str:
        """Writes the archive of a collection: its config, and for each shard the data if it is local."""
        collection = metadata.collection_of(self.node.state, name)
        path = self.temporary_path()
        local = self.node.local_shards(name)
        keys: Json = {}
        for shard_id, shard in collection["shards"].items():
            if shard["key"] is not None:
                keys.setdefault(json.dumps(shard["key"]), []).append(int(shard_id))
        mapping = [{"key": json.loads(key), "shard_ids": ids} for key, ids in keys.items()]
        head = [
            tarball.bytes_entry("version.info", self.node.settings.version.encode()),
            tarball.bytes_entry("config.json", json.dumps(collection["config"]).encode()),
            tarball.bytes_entry("shard_key_mapping.json", json.dumps(mapping).encode()),
            tarball.bytes_entry("payload_index.json", json.dumps({"schema": collection["payload_schema"]}).encode()),
        ]

        with open(path, "wb") as out:
            def members(entries: list[tarball.Entry]) -> None:
                for entry in entries:
                    out.write(entry.header)
                    entry.write(out.write)
                    out.write(bytes(tarball.padded(entry.size) - entry.size))

            members(head)
            for shard_id in sorted(map(int, collection["shards"])):
                state = self.replica_state(name, shard_id)
                if shard_id in local:
                    local[shard_id].pack(f"{shard_id}/", state, members)
                else:
                    members(tarball.shard_tail(f"{shard_id}/", state))
            tarball.write_archive([], out.write)
        return path

    def publish(self, name: str, temporary: str, folder: str, stem: str) -> Json:
        """Hashes a finished archive and moves it to its final name, sidecar first."""
        checksum = file_hash(temporary)
        time.sleep(self.node.settings.snapshot_delay)
        os.makedirs(folder, exist_ok=True)
        with self._lock:  # Two of the same second have the same name: the later one replaces the earlier whole.
            path = os.path.join(folder, f"{stem}-{time.strftime('%Y-%m-%d-%H-%M-%S', time.gmtime())}.snapshot")
            write_atomic(path + ".checksum", checksum.encode())
            os.utime(temporary)
            os.replace(temporary, path)
            self.created[name] = self.created.get(name, 0) + 1
            return describe(path)

    def replica_state(self, name: str, shard_id: int) -> bytes:
        shard = metadata.shard_of(metadata.collection_of(self.node.state, name), shard_id)
        return json.dumps({"is_local": str(self.node.peer_id) in shard["replicas"], "this_peer_id": self.node.peer_id,
                           "peers": shard["replicas"]}, separators=(",", ":")).encode()

    # --- recover --------------------------------------------------------------------------------------------------

    def recover_shard(self, name: str, shard_id: int, body: Json) -> bool:
        name = metadata.resolve(self.node.state, name)
        priority = read_priority(body.get("priority"))
        shard = self.node.local_shard(name, shard_id)
        with self.running(self.recovering, name):
            with self.fetched(body, self.shard_folder(name, shard_id)) as path:
                self.restore(name, shard_id, shard, path, "", priority)
        return True

    def upload_shard(self, name: str, shard_id: int, path: str, priority: str | None, checksum: str | None) -> None:
        name = metadata.resolve(self.node.state, name)
        shard = self.node.local_shard(name, shard_id)
        with self.running(self.recovering, name):
            check_upload(path, checksum)
            self.restore(name, shard_id, shard, path, "", read_priority(priority))

    def recover_collection(self, name: str, body: Json) -> bool:
        priority = read_priority(body.get("priority"))
        with self.running(self.recovering, name):
            with self.fetched(body, os.path.join(self.root, name), files_only=True) as path:
                self.restore_collection(name, path, priority)
        return True

    def upload_collection(self, name: str, path: str, priority: str | None, checksum: str | None) -> bool:
        with self.running(self.recovering, name):
            check_upload(path, checksum)
            self.restore_collection(name, path, read_priority(priority))
        return True

    def restore_collection(self, name: str, path: str, priority: str) -> None:
        """Restores those of this node's shards that the archive has data for; creates a missing collection first."""
        name = self.node.state["aliases"].get(name, name)
        try:
            with tarfile.open(path, "r:") as archive:
                config = json.load(archive.extractfile("config.json"))
                mapping = json.load(archive.extractfile("shard_key_mapping.json"))
                shards = {match[1] for match in (re.match(r"(\d+)/", member) for member in archive.getnames()) if match}
                schema = json.load(archive.extractfile("payload_index.json"))["schema"]
        except (tarfile.TarError, KeyError, ValueError) as error:
            raise internal(f"Failed to read snapshot: {error}") from error
        keys = {str(shard_id): item["key"] for item in mapping for shard_id in item["shard_ids"]}
        if name not in self.node.state["collections"]:
            self.node.propose("restore_collection", name=name, config=config, schema=schema,
                              shards={shard_id: keys.get(shard_id) for shard_id in shards},
                              keys=[item["key"] for item in mapping])
        elif metadata.collection_of(self.node.state, name)["config"]["params"]["vectors"] != config["params"]["vectors"]:
            raise bad_request("Snapshot is not compatible with existing collection: vectors config mismatch")
        for shard_id, shard in self.node.local_shards(name).items():
            self.restore(name, shard_id, shard, path, f"{shard_id}/", priority)

    def restore(self, name: str, shard_id: int, shard: LocalShard, path: str, prefix: str, priority: str) -> None:
        try:
            prepared = shard.prepare(path, prefix)
        except ApiError:
            raise
        except Exception as error:  # noqa: BLE001 - tarfile, OS and the engine all raise their own kinds
            raise internal(f"Failed to restore snapshot: {error}") from error
        if prepared is None:
            if prefix:
                return  # A collection snapshot of another node: it has no data for this shard.
            raise internal("Failed to restore snapshot: the archive holds no shard")
        time.sleep(self.node.settings.recovery_delay)
        shard.replace(prepared)
        self.settle(name, shard_id, priority)

    def settle(self, name: str, shard_id: int, priority: str) -> None:
        """Sets the replica states that a recovery with this priority leads to."""
        collection = metadata.collection_of(self.node.state, name)
        replicas = metadata.shard_of(collection, shard_id)["replicas"]
        me = str(self.node.peer_id)
        others = [peer for peer, state in replicas.items() if peer != me and state == ACTIVE]
        changes: Json = {}
        if priority == "snapshot":
            changes = {me: ACTIVE, **{peer: DEAD for peer in others}}
        elif priority == "replica" and others:
            changes = {me: DEAD}
        elif replicas.get(me) != ACTIVE:
            changes = {me: ACTIVE}
        if any(replicas.get(peer) != state for peer, state in changes.items()):
            self.node.propose("set_replicas", name=name, uid=collection["uid"], shard_id=shard_id, replicas=changes)

    @contextmanager
    def fetched(self, body: Json, folder: str, files_only: bool = False) -> Iterator[str]:
        """The archive that a recover request names, as a local file with the right checksum."""
        location, checksum = body.get("location"), body.get("checksum")
        if not isinstance(location, str):
            raise ApiError(400, "Format error in JSON body: missing field `location`")
        parts = urllib.parse.urlsplit(location)
        if parts.scheme in ("http", "https"):
            path, actual = self.download(location, body.get("api_key"), bool(checksum))
            try:
                check_recovered(actual, checksum)
                yield path
            finally:
                os.unlink(path)
            return
        if parts.scheme == "file":
            path = os.path.realpath(urllib.parse.unquote(parts.path))
            if not path.startswith(os.path.realpath(self.root) + os.sep):
                raise forbidden(f"Snapshot file path must be inside the snapshots directory \"{self.root}\"")
            if not os.path.isfile(path):
                raise not_found(f"Snapshot file {location} does not exist")
        elif files_only or parts.scheme:
            raise bad_request(f"Invalid snapshot location: {location}")
        else:
            path = self.find(folder, location)
        if checksum:
            check_recovered(file_hash(path), checksum)
        yield path

    def download(self, url: str, api_key: str | None, hashed: bool) -> tuple[str, str]:
        import urllib.error
        import urllib.request

        request = urllib.request.Request(url, headers={"accept-encoding": "identity"})
        if api_key:
            request.add_unredirected_header("api-key", api_key)
        path = self.temporary_path()
        digest = hashlib.sha256()
        try:
            # No proxy: what a local node is told to fetch is local, too.
            secure = urllib.request.HTTPSHandler(context=download_context(self.node.settings.service_tls))
            opener = urllib.request.build_opener(urllib.request.ProxyHandler({}), secure)
            with opener.open(request, timeout=60) as response, open(path, "wb") as out:
                expected = response.headers.get("content-length")
                received = 0
                while chunk := response.read(tarball.COPY_SIZE):
                    received += len(chunk)
                    out.write(chunk)
                    if hashed:
                        digest.update(chunk)
                if expected is not None and received != int(expected):
                    raise OSError("connection closed before message completed")
        except urllib.error.HTTPError as error:
            os.path.exists(path) and os.unlink(path)
            raise wrong_input(f"Failed to download snapshot from {url}: status - {error.code}") from error
        except Exception as error:  # noqa: BLE001 - urllib raises OSError, HTTPException and ValueError alike
            os.path.exists(path) and os.unlink(path)
            raise internal(f"Http request error: error sending request for url ({url})") from error
        return path, digest.hexdigest()

    # --- copies between peers -------------------------------------------------------------------------------------

    def send_shard(self, request: Json) -> None:
        """Copies a shard to another peer and has it declared Active there; writes of the shard wait meanwhile."""
        node, name, shard_id = self.node, request["name"], request["shard_id"]
        shard = node.shards.get((request["uid"], shard_id))
        if shard is None:
            raise internal(f"Shard {shard_id} is not on this peer")
        node.stopping.wait(node.settings.transfer_delay)
        with shard.write_order:
            path = self.pack_shard(name, shard_id, shard)
            try:
                with open(path, "rb") as file:
                    node.client.call(
                        node.uri_of(str(request["target"])), f"/internal/receive?uid={request['uid']}&shard={shard_id}",
                        timeout=600.0, stream=(file, os.path.getsize(path)))
            finally:
                os.unlink(path)
            node.propose("end_transfer", name=name, transfer=request["transfer"], required=True,
                         replicas={str(request["target"]): ACTIVE, **request["after"]})

    def receive_shard(self, uid: str, shard_id: int, body: BinaryIO, size: int) -> bool:
        shard = self.node.shards.get((uid, shard_id))
        if shard is None:
            raise internal(f"Shard {shard_id} is not on this peer")
        path = self.temporary_path()
        try:
            with open(path, "wb") as out:
                while size > 0:
                    chunk = body.read(min(size, tarball.COPY_SIZE))
                    if not chunk:
                        raise internal("the transfer ended early")
                    out.write(chunk)
                    size -= len(chunk)
            prepared = shard.prepare(path)
            if prepared is None:
                raise internal("the transfer holds no shard")
            shard.replace(prepared)
        finally:
            os.unlink(path)
        return True

    # --- helpers --------------------------------------------------------------------------------------------------

    def temporary_path(self) -> str:
        with self._lock:
            self._serial += 1
            return os.path.join(self.temporary, f"{self._serial}.part")

    @contextmanager
    def running(self, gauge: dict[str, int], name: str) -> Iterator[None]:
        with self._lock:
            gauge[name] = gauge.get(name, 0) + 1
        try:
            yield
        finally:
            with self._lock:
                gauge[name] -= 1


def describe(path: str) -> Json:
    stat = os.stat(path)
    checksum = None
    if os.path.exists(path + ".checksum"):
        with open(path + ".checksum", encoding="utf-8") as file:
            checksum = file.read().strip()
    return {"name": os.path.basename(path),
            "creation_time": time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(stat.st_mtime)),
            "size": stat.st_size, "checksum": checksum}


def file_hash(path: str) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def read_priority(value: str | None) -> str:
    if value is None:
        return "snapshot"
    if value not in ("snapshot", "replica", "no_sync"):
        raise ApiError(400, f"Format error in JSON body: unknown variant `{value}`, expected one of "
                            "`no_sync`, `snapshot`, `replica`")
    return value


def check_recovered(actual: str, checksum: str | None) -> None:
    if checksum and actual != checksum.lower():
        raise wrong_input(f"Snapshot checksum mismatch: expected {checksum}, got {actual}")


def check_upload(path: str, checksum: str | None) -> None:
    if checksum:
        actual = file_hash(path)
        if actual != checksum.lower():
            raise ApiError(400, f"Checksum mismatch: expected {actual}, actual {checksum}")


