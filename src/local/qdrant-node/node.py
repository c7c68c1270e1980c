"""One peer: its identity, its copy of the cluster's metadata, and its local shards.

Invariants
1. One peer, the owner, decides every metadata change and gives it the next version; the others hold copies.
2. A copy is on disk before it is visible, and a shard's folder exists before the copy that mentions it is on disk.
3. A peer that cannot reach the owner may still declare a replica Dead (a pending mark): it acts on that at once and
   hands it to the owner when the owner is back. The owner asks for pending marks before it serves clients again.
"""

import copy
import json
import os
import secrets
import shutil
import sys
import threading
import time
from typing import Any, Callable

import metadata
from engine import Json
from errors import ApiError, internal, no_collection, wrong_input
from files import write_atomic
from metadata import ACTIVE, DEAD
from peers import PeerClient, PeerUnreachable
from settings import Settings
from shard import LocalShard
from tls import PeerPort

POLL_SECONDS = 0.3
FLUSH_SECONDS = 5.0
PUSH_TIMEOUT = 5.0


class Node:
    def __init__(self, settings: Settings):
        self.settings = settings
        files = settings.p2p_tls
        self.client = PeerClient(None if files is None else PeerPort(files, settings.peer_name))
        self.ready = threading.Event()
        self.stopping = threading.Event()
        self.started_at = time.time()
        self.owner_seen = time.time()
        self.shards: dict[tuple[str, int], LocalShard] = {}
        self.pending: list[Json] = []
        # True when the node could not start, which the exit code reports.
        self.failed = False
        self._change_lock = threading.RLock()
        self._state_lock = threading.RLock()
        os.makedirs(settings.storage_path, exist_ok=True)
        identity = self._read("node.json") or {"peer_id": secrets.randbelow(2**53 - 2) + 1, "secret": ""}
        self.peer_id: int = identity["peer_id"]
        self.client.secret = identity["secret"]
        self.base: Json = self._read("metadata.json") or {}
        self.pending = self._read("pending.json") or []
        self.state: Json = self._overlay() if self.base else {}
        self._identity = identity

    # --- start and stop -------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Joins or resumes the cluster. The p2p port already answers; clients are served when this returns."""
        if not self.base and self.settings.bootstrap:
            self._join(self.settings.bootstrap)
        elif not self.base:
            self._save_identity(secrets.token_hex(16))
            self.base = metadata.empty(self.peer_id, self.settings.uri or "")
            self._write("metadata.json", self.base)
            self.state = self._overlay()
        else:
            self._reconcile(self.state, opening=False)
            self._resume()
        threading.Thread(target=self._maintain, daemon=True).start()
        threading.Thread(target=self._load, daemon=True).start()
        if self.settings.clustered:
            threading.Thread(target=self._follow, daemon=True).start()

    def stop(self) -> None:
        self.stopping.set()
        for shard in list(self.shards.values()):
            shard.close()

    def _join(self, bootstrap: str) -> None:
        self._write("node.json", self._identity)
        deadline = time.monotonic() + self.settings.bootstrap_timeout
        headers = {"api-key": self.settings.api_key} if self.settings.api_key else None
        while True:
            try:
                answer = self.client.call(
                    bootstrap, "/internal/join", {"peer_id": self.peer_id, "uri": self.settings.uri}, headers=headers)
                break
            except ApiError as error:
                refused = error.status in (400, 401, 403)
                if refused or time.monotonic() > deadline:
                    print(f"qdrant-node: cannot join the cluster through {bootstrap}: {error}", file=sys.stderr)
                    raise SystemExit(1) from error
            if self.stopping.wait(0.1):
                raise SystemExit(1)
        self._save_identity(answer["secret"])
        self.apply(answer["state"], [])

    def _resume(self) -> None:
        if self.is_owner:
            for name, collection in self.base["collections"].items():
                for transfer in list(collection["transfers"]):
                    metadata.abort_transfer(self.base, name, transfer["id"])
            self.state = self._overlay()
            for uri in self._other_uris():
                try:
                    marks = self.client.call(uri, "/internal/pending", timeout=1.0)
                except ApiError:
                    continue
                if marks:
                    self.execute("absorb", {"marks": marks})
        else:
            self._poll_owner()
        uri = self.settings.uri or ""
        mine = self.state["peers"].get(str(self.peer_id))
        if mine is not None and mine["uri"] != uri:
            threading.Thread(target=self._announce, args=(uri,), daemon=True).start()

    def _announce(self, uri: str) -> None:
        while not self.stopping.is_set():
            try:
                self.propose("add_peer", peer_id=self.peer_id, uri=uri)
                return
            except ApiError:
                self.stopping.wait(0.5)

    def _load(self) -> None:
        """Opens every shard; a replica whose data is gone is declared Dead, so that it is healed from another."""
        for (uid, shard_id), shard in list(self.shards.items()):
            try:
                shard.engine()
                if shard.created:
                    name = next((n for n, c in self.state["collections"].items() if c["uid"] == uid), None)
                    if name is not None:
                        self.mark_dead(name, shard_id, str(self.peer_id))
            except ApiError as error:
                print(f"qdrant-node: shard {shard_id}: {error}", file=sys.stderr)
            except Exception as error:  # noqa: BLE001 - the engine raises bare Exception
                print(f"qdrant-node: shard {shard_id} cannot be opened: {error}", file=sys.stderr)
        self.ready.set()

    # --- metadata -------------------------------------------------------------------------------------------------

    @property
    def is_owner(self) -> bool:
        return self.base.get("owner") == self.peer_id

    @property
    def owner_uri(self) -> str:
        return self.base["peers"][str(self.base["owner"])]["uri"]

    def uri_of(self, peer: str) -> str:
        return self.state["peers"][peer]["uri"]

    def propose(self, command: str, **arguments: Any) -> Any:
        """Has the owner make a change. Returns when every reachable peer has applied it."""
        if self.is_owner:
            return self.execute(command, arguments)
        try:
            answer = self.client.call(
                self.owner_uri, "/internal/propose", {"command": command, "arguments": arguments}, timeout=30.0)
        except PeerUnreachable as error:
            raise internal(f"the peer that decides metadata changes cannot be reached: {error}") from error
        self.apply(answer["state"], [])
        return answer["result"]

    def execute(self, command: str, arguments: Json) -> Any:
        """Makes a change here, on the owner."""
        with self._change_lock:
            if not self.is_owner:
                raise internal("this peer no longer decides metadata changes")
            changed = copy.deepcopy(self.base)
            absorbed: list[str] = []
            if command == "absorb":
                result: Any = True
                for mark in arguments["marks"]:
                    absorbed.append(mark["id"])
                    trial = copy.deepcopy(changed)
                    try:
                        metadata.set_replicas(trial, mark["name"], mark["uid"], mark["shard_id"], {mark["peer"]: DEAD})
                    except ApiError:
                        continue
                    changed = trial
            else:
                result = metadata.COMMANDS[command](changed, **arguments)
            targets = set(self._other_uris())
            changed["version"] += 1
            self.apply(changed, absorbed)
            targets |= set(self._other_uris())
            parallel([lambda uri=uri: self._push(uri, absorbed) for uri in targets])
            return result

    def _push(self, uri: str, absorbed: list[str]) -> None:
        try:
            self.client.call(uri, "/internal/apply", {"state": self.base, "absorbed": absorbed}, timeout=PUSH_TIMEOUT)
        except ApiError:
            pass  # It asks for the state itself as soon as it can, see _follow.

    def apply(self, state: Json, absorbed: list[str]) -> None:
        """Takes over a newer version of the metadata."""
        with self._state_lock:
            if absorbed:
                self.pending = [mark for mark in self.pending if mark["id"] not in absorbed]
                self._write("pending.json", self.pending)
            if self.base and state["version"] <= self.base["version"]:
                if absorbed:
                    self.state = self._overlay()
                return
            self._reconcile(state)
            self._write("metadata.json", state)
            self.base = state
            self.state = self._overlay()

    def _overlay(self) -> Json:
        if not self.pending:
            return self.base
        state = copy.deepcopy(self.base)
        for mark in self.pending:
            collection = state["collections"].get(mark["name"])
            if collection is not None and collection["uid"] == mark["uid"]:
                shard = collection["shards"].get(str(mark["shard_id"]))
                if shard is not None and mark["peer"] in shard["replicas"]:
                    shard["replicas"][mark["peer"]] = DEAD
        return state

    def mark_dead(self, name: str, shard_id: int, peer: str) -> None:
        """Declares a replica Dead. Raises ApiError (500) if it is the last Active one."""
        collection = self.state["collections"].get(name)
        if collection is None:
            raise no_collection(name)
        shard = metadata.shard_of(collection, shard_id)
        if metadata.active_peers(shard) == [peer]:
            raise internal(f"The last active replica of shard {shard_id} is not available")
        try:
            if self.is_owner:
                self.execute("set_replicas", {"name": name, "uid": collection["uid"], "shard_id": shard_id,
                                              "replicas": {peer: DEAD}})
                return
            answer = self.client.call(self.owner_uri, "/internal/propose", {"command": "set_replicas", "arguments": {
                "name": name, "uid": collection["uid"], "shard_id": shard_id, "replicas": {peer: DEAD}}}, timeout=5.0)
            self.apply(answer["state"], [])
        except PeerUnreachable:
            with self._state_lock:
                mark = {"id": secrets.token_hex(8), "name": name, "uid": collection["uid"], "shard_id": shard_id,
                        "peer": peer}
                self.pending.append(mark)
                self._write("pending.json", self.pending)
                self.state = self._overlay()

    def _follow(self) -> None:
        while not self.stopping.wait(POLL_SECONDS):
            try:
                if not self.is_owner:
                    self._poll_owner()
            except Exception as error:  # noqa: BLE001 - tried again next time, whatever it was
                print(f"qdrant-node: the owner's metadata was not taken over: {error}", file=sys.stderr, flush=True)

    def _poll_owner(self) -> None:
        try:
            if self.pending:
                self.client.call(self.owner_uri, "/internal/propose",
                                 {"command": "absorb", "arguments": {"marks": self.pending}}, timeout=5.0)
            answer = self.client.call(self.owner_uri, "/internal/state", {"version": self.base["version"]}, timeout=2.0)
            self.owner_seen = time.time()
            if answer is not None:
                self.apply(answer, [])
        except ApiError:
            return

    def _other_uris(self) -> list[str]:
        return [peer["uri"] for key, peer in self.base["peers"].items() if key != str(self.peer_id)]

    # --- local shards ---------------------------------------------------------------------------------------------

    def local_shard(self, name: str, shard_id: int) -> LocalShard:
        collection = metadata.collection_of(self.state, name)
        shard = self.shards.get((collection["uid"], shard_id))
        if shard is None:
            raise wrong_input(f"Shard {shard_id} is not a local or queue proxy shard")
        return shard

    def local_shards(self, name: str) -> dict[int, LocalShard]:
        collection = metadata.collection_of(self.state, name)
        return {int(shard_id): self.shards[(collection["uid"], int(shard_id))] for shard_id in collection["shards"]
                if (collection["uid"], int(shard_id)) in self.shards}

    def _reconcile(self, state: Json, opening: bool = True) -> None:
        """Makes the local shards those that `state` puts on this peer, and creates the new ones at once."""
        me = str(self.peer_id)
        wanted: dict[tuple[str, int], tuple[str, Json]] = {}
        for name, collection in state["collections"].items():
            for shard_id, shard in collection["shards"].items():
                if me in shard["replicas"]:
                    wanted[(collection["uid"], int(shard_id))] = (name, collection)
        for key in [key for key in self.shards if key not in wanted]:
            self.shards.pop(key).remove()
        for key, (name, collection) in wanted.items():
            shard = self.shards.get(key)
            if shard is None:
                folder = os.path.join(self.settings.storage_path, "collections", name, key[0], str(key[1]))
                config = collection["config"]
                params = {**config["params"], "quantization_config": config.get("quantization_config")}
                shard = LocalShard(folder, params, collection["payload_schema"])
                self.shards[key] = shard
                if opening:
                    shard.engine()
                    shard.created = False
            elif shard.schema != collection["payload_schema"]:
                for field in set(shard.schema) - set(collection["payload_schema"]):
                    shard.update({"type": "delete_index", "field": field})
                shard.apply_schema(collection["payload_schema"])
        self._sweep(state)

    def _sweep(self, state: Json) -> None:
        """Removes folders of collections that are gone."""
        root = os.path.join(self.settings.storage_path, "collections")
        if not os.path.isdir(root):
            return
        for name in os.listdir(root):
            collection = state["collections"].get(name)
            for uid in os.listdir(os.path.join(root, name)):
                if collection is None or collection["uid"] != uid:
                    shutil.rmtree(os.path.join(root, name, uid), ignore_errors=True)
            if collection is None:
                shutil.rmtree(os.path.join(root, name), ignore_errors=True)

    # --- background -----------------------------------------------------------------------------------------------

    def _maintain(self) -> None:
        last_flush = time.monotonic()
        while not self.stopping.wait(0.2):
            try:
                if time.monotonic() - last_flush > FLUSH_SECONDS:
                    last_flush = time.monotonic()
                    for shard in list(self.shards.values()):
                        shard.flush()
                if self.is_owner and len(self.base["peers"]) > 1:
                    self._heal()
            except Exception as error:  # noqa: BLE001 - tried again next time, whatever it was
                print(f"qdrant-node: maintenance failed: {error}", file=sys.stderr, flush=True)

    def _heal(self) -> None:
        """Re-syncs replicas that are not Active, one at a time."""
        for name, collection in list(self.base["collections"].items()):
            for shard_id, shard in list(collection["shards"].items()):
                if any(t["shard_id"] == int(shard_id) for t in collection["transfers"]):
                    continue
                active = metadata.active_peers(shard)
                for peer, replica in shard["replicas"].items():
                    if replica == ACTIVE or not active or self.stopping.is_set():
                        continue
                    if not self.reachable(peer) or not self.reachable(active[0]):
                        continue
                    try:
                        self.transfer(name=name, shard_id=int(shard_id), source=int(active[0]), target=int(peer),
                                      after={}, sync=True)
                    except ApiError as error:
                        print(f"qdrant-node: shard {shard_id} of {name} not healed: {error}", file=sys.stderr)
                        self.stopping.wait(0.5)

    def reachable(self, peer: str) -> bool:
        if peer == str(self.peer_id):
            return True
        try:
            return self.client.call(self.uri_of(peer), "/internal/ping", timeout=1.0) is True
        except (ApiError, KeyError):
            return False

    def begin_transfer(self, **request: Any) -> bool:
        """Enters a transfer and copies in the background; a failure ends it as an abort would. Runs on the owner."""
        transfer = self._enter_transfer(**request)

        def run() -> None:
            try:
                self._run_transfer(transfer, **request)
            except ApiError as error:
                print(f"qdrant-node: shard {request['shard_id']} of {request['name']} not copied: {error}",
                      file=sys.stderr, flush=True)

        threading.Thread(target=run, daemon=True).start()
        return True

    def transfer(self, **request: Any) -> None:
        """Copies a shard to `target` and makes it Active there; runs on the owner.

        `after` names the replica states that change together with it (a move drops its source).
        """
        self._run_transfer(self._enter_transfer(**request), **request)

    def _enter_transfer(self, name: str, shard_id: int, source: int, target: int, after: Json, sync: bool) -> str:
        transfer = secrets.token_hex(8)
        self.execute("add_transfer", {"name": name, "transfer": transfer, "shard_id": shard_id, "source": source,
                                      "target": target, "sync": sync})
        return transfer

    def _run_transfer(self, transfer: str, name: str, shard_id: int, source: int, target: int, after: Json,
                      sync: bool) -> None:
        try:
            collection = self.base["collections"][name]
            active = metadata.active_peers(collection["shards"][str(shard_id)])
            request = {"name": name, "uid": collection["uid"], "shard_id": shard_id, "target": target, "after": after,
                       "transfer": transfer}
            if active[0] == str(self.peer_id):
                self.send_shard(request)
            else:
                self.client.call(self.uri_of(active[0]), "/internal/transfer", request, timeout=600.0)
        except BaseException:
            self.execute("end_transfer", {"name": name, "transfer": transfer,
                                          "replicas": {str(target): DEAD if sync else None}})
            raise

    send_shard: Callable[[Json], None]

    # --- files ----------------------------------------------------------------------------------------------------

    def _save_identity(self, secret: str) -> None:
        self._identity = {"peer_id": self.peer_id, "secret": secret}
        self.client.secret = secret
        self._write("node.json", self._identity)

    def _read(self, name: str) -> Any:
        try:
            with open(os.path.join(self.settings.storage_path, name), encoding="utf-8") as file:
                return json.load(file)
        except FileNotFoundError:
            return None

    def _write(self, name: str, value: Any) -> None:
        write_atomic(os.path.join(self.settings.storage_path, name), json.dumps(value).encode())


def parallel(tasks: list[Callable[[], Any]]) -> list[Any]:
    """Runs the tasks at the same time and returns their results; raises the first failure after all have ended."""
    if len(tasks) <= 1:
        return [task() for task in tasks]
    results: list[Any] = [None] * len(tasks)
    failures: list[BaseException] = []

    def run(index: int, task: Callable[[], Any]) -> None:
        try:
            results[index] = task()
        except BaseException as error:  # noqa: BLE001 - handed to the caller below
            failures.append(error)

    threads = [threading.Thread(target=run, args=item, daemon=True) for item in list(enumerate(tasks))[1:]]
    for thread in threads:
        thread.start()
    run(0, tasks[0])
    for thread in threads:
        thread.join()
    if failures:
        raise failures[0]
    return results
