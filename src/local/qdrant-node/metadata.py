"""The cluster's metadata and every change of it, as plain functions on one JSON document.

    {version, owner, peers: {id: {uri}},
     collections: {name: {uid, config, payload_schema, operation, shards: {id: {key, replicas: {peer: state}}},
                          keys: [..], transfers: [..]}},
     aliases: {alias: collection}}

Each command takes the document and its arguments, changes it in place, and returns the answer. The owner runs it on a
copy and publishes the copy only if nothing was raised.
"""

import secrets
from typing import Any, Callable

from collections_config import check_name, new_config, updated_config
from engine import SCHEMA_TYPES, Json
from errors import bad_request, conflict, format_error, internal, no_collection, not_found

ACTIVE, DEAD, PARTIAL = "Active", "Dead", "Partial"


def empty(peer_id: int, uri: str) -> Json:
    return {"version": 1, "owner": peer_id, "peers": {str(peer_id): {"uri": uri}}, "collections": {}, "aliases": {}}


def resolve(state: Json, name: str) -> str:
    """The collection a name or an alias stands for."""
    real = state["aliases"].get(name, name)
    if real not in state["collections"]:
        raise no_collection(name)
    return real


def collection_of(state: Json, name: str) -> Json:
    return state["collections"][resolve(state, name)]


def shard_of(collection: Json, shard_id: int | str) -> Json:
    shard = collection["shards"].get(str(shard_id))
    if shard is None:
        raise not_found(f"Shard {shard_id} not found")
    return shard


def active_peers(shard: Json) -> list[str]:
    return sorted((peer for peer, replica in shard["replicas"].items() if replica == ACTIVE), key=int)


# --- commands ---------------------------------------------------------------------------------------------------


def add_peer(state: Json, peer_id: int, uri: str) -> bool:
    for other, peer in list(state["peers"].items()):
        if peer["uri"] == uri and other != str(peer_id):
            if holders_of(state, other):
                raise bad_request(f"peer URI {uri} already used by peer {other} which still has shards, "
                                  "remove its shards first or use a different URI")
            # Who starts anew in place of a peer without shards takes it over.
            remove_peer(state, int(other), False)
    state["peers"][str(peer_id)] = {"uri": uri}
    return True


def holders_of(state: Json, peer: str) -> list[Json]:
    """The shards of which a peer has a replica."""
    return [shard for collection in state["collections"].values() for shard in collection["shards"].values()
            if peer in shard["replicas"]]


def remove_peer(state: Json, peer_id: int, force: bool) -> bool:
    key = str(peer_id)
    if key not in state["peers"]:
        raise bad_request(f"Peer {peer_id} does not exist")
    holders = holders_of(state, key)
    if holders and not force:
        raise bad_request(f"Cannot remove peer {peer_id} as there are shards on it")
    if len(state["peers"]) == 1:
        raise bad_request("Cannot remove the last peer of the cluster")
    for shard in holders:
        del shard["replicas"][key]
    for collection in state["collections"].values():
        collection["transfers"] = [t for t in collection["transfers"] if peer_id not in (t["from"], t["to"])]
    del state["peers"][key]
    if state["owner"] == peer_id:
        state["owner"] = min(map(int, state["peers"]))
    return True


def create_collection(state: Json, name: str, body: Json) -> bool:
    check_name(name)
    if name in state["collections"]:
        raise conflict(f"Collection `{name}` already exists!")
    if name in state["aliases"]:
        raise conflict(f"Can't create collection with name {name}. Alias with the same name already exists")
    config = new_config(body, len(state["peers"]))
    collection: Json = {"uid": secrets.token_hex(6), "config": config, "payload_schema": {}, "operation": 0,
                        "shards": {}, "keys": [], "transfers": []}
    state["collections"][name] = collection
    if config["params"].get("sharding_method") != "custom":
        for shard_id in range(config["params"]["shard_number"]):
            place_shard(state, collection, shard_id, None, config["params"]["replication_factor"])
    return True


def update_collection(state: Json, name: str, body: Json) -> bool:
    collection = collection_of(state, name)
    collection["config"] = updated_config(collection["config"], body)
    return True


def delete_collection(state: Json, name: str) -> bool:
    if name not in state["collections"]:
        return False
    del state["collections"][name]
    state["aliases"] = {alias: target for alias, target in state["aliases"].items() if target != name}
    return True


def create_shard_key(state: Json, name: str, body: Json) -> bool:
    collection = collection_of(state, name)
    require_custom(collection)
    key = body.get("shard_key")
    if isinstance(key, bool) or not isinstance(key, (str, int)):
        raise format_error("missing field `shard_key`")
    if key in collection["keys"]:
        raise bad_request(f"Sharding key {key} already exists for collection {name}")
    params = collection["config"]["params"]
    placement = body.get("placement")
    for peer in placement or []:
        if str(peer) not in state["peers"]:
            raise bad_request(f"Peer {peer} does not exist")
    if placement is not None and not placement:
        raise bad_request("Sharding key placement cannot be empty. If you want to use random placement, do not specify placement")
    factor = body.get("replication_factor") or params["replication_factor"]
    for _ in range(body.get("shards_number") or params["shard_number"]):
        # Ids follow the highest one in use; the first is 1.
        shard_id = max(map(int, collection["shards"]), default=0) + 1
        place_shard(state, collection, shard_id, key, factor, placement)
    collection["keys"].append(key)
    return True


def delete_shard_key(state: Json, name: str, body: Json) -> bool:
    collection = collection_of(state, name)
    require_custom(collection)
    key = body.get("shard_key")
    if key not in collection["keys"]:
        raise bad_request(f"Sharding key {key} does not exist for collection {name}")
    collection["keys"].remove(key)
    collection["shards"] = {i: shard for i, shard in collection["shards"].items() if shard["key"] != key}
    return True


def create_index(state: Json, name: str, body: Json) -> int:
    collection = collection_of(state, name)
    field, schema = body.get("field_name"), body.get("field_schema")
    if not isinstance(field, str):
        raise format_error("missing field `field_name`")
    kind = schema.get("type") if isinstance(schema, dict) else schema
    if kind is None:
        raise bad_request("Can't auto-detect field type, please specify `field_schema` in the request")
    if kind not in SCHEMA_TYPES:
        raise format_error("data did not match any variant of untagged enum PayloadFieldSchema")
    collection["payload_schema"][field] = schema
    collection["operation"] += 2
    return collection["operation"]


def delete_index(state: Json, name: str, field: str) -> int:
    collection = collection_of(state, name)
    collection["payload_schema"].pop(field, None)
    collection["operation"] += 2
    return collection["operation"]


def change_aliases(state: Json, body: Json) -> bool:
    actions = body.get("actions")
    if not isinstance(actions, list):
        raise format_error("missing field `actions`")
    aliases = state["aliases"]
    for action in actions:
        if spec := action.get("create_alias"):
            if spec["collection_name"] not in state["collections"]:
                raise no_collection(spec["collection_name"])
            if spec["alias_name"] in state["collections"]:
                raise conflict(f"Collection `{spec['alias_name']}` already exists!")
            aliases[spec["alias_name"]] = spec["collection_name"]
        elif spec := action.get("delete_alias"):
            aliases.pop(spec["alias_name"], None)
        elif spec := action.get("rename_alias"):
            if spec["old_alias_name"] not in aliases:
                raise not_found(f"Alias {spec['old_alias_name']} does not exists!")
            aliases[spec["new_alias_name"]] = aliases.pop(spec["old_alias_name"])
        else:
            raise format_error("data did not match any variant of untagged enum AliasOperations")
    return True


def set_replicas(state: Json, name: str, uid: str, shard_id: int, replicas: Json) -> bool:
    """Sets replica states (null removes one); the last Active replica cannot be lost this way."""
    collection = state["collections"].get(name)
    if collection is None or collection["uid"] != uid:
        raise no_collection(name)
    shard = shard_of(collection, shard_id)
    for peer, replica in replicas.items():
        if replica is None:
            shard["replicas"].pop(peer, None)
        elif peer in shard["replicas"]:
            shard["replicas"][peer] = replica
    if not active_peers(shard):
        raise internal(f"Shard {shard_id} must have at least one active replica after this change")
    return True


def add_transfer(state: Json, name: str, transfer: str, shard_id: int, source: int, target: int, sync: bool) -> bool:
    collection = collection_of(state, name)
    shard = shard_of(collection, shard_id)
    if shard["replicas"].get(str(target)) == ACTIVE:
        raise bad_request(f"Shard {shard_id} is already present on peer {target}")
    if any(t["shard_id"] == shard_id for t in collection["transfers"]):
        raise bad_request(f"Shard {shard_id} is already involved in transfer")
    shard["replicas"][str(target)] = PARTIAL
    collection["transfers"].append(
        {"id": transfer, "shard_id": shard_id, "from": source, "to": target, "sync": sync, "method": "snapshot"})
    return True


def end_transfer(state: Json, name: str, transfer: str, replicas: Json, required: bool = False) -> bool:
    """Forgets a transfer and sets the replica states that go with its end; nothing when it is over already.

    Raises ApiError with `required`: whoever copied the data must not declare it Active after an abort.
    """
    collection = state["collections"].get(name)
    found = next((t for t in collection["transfers"] if t["id"] == transfer), None) if collection is not None else None
    if collection is None or found is None:
        if required:
            raise bad_request("the shard transfer was aborted")
        return False
    collection["transfers"].remove(found)
    shard = collection["shards"].get(str(found["shard_id"]))
    if shard is not None:
        for peer, replica in replicas.items():
            if replica is None:
                shard["replicas"].pop(peer, None)
            elif peer in shard["replicas"]:
                shard["replicas"][peer] = replica
    return True


def abort_transfer(state: Json, name: str, transfer: str) -> bool:
    """A copy that was to become a new replica goes; one that was to heal a replica leaves it Dead."""
    collection = collection_of(state, name)
    found = next((t for t in collection["transfers"] if t["id"] == transfer), None)
    if found is None:
        return False
    return end_transfer(state, name, transfer, {str(found["to"]): DEAD if found["sync"] else None})


def restore_collection(state: Json, name: str, config: Json, schema: Json, shards: Json, keys: list[Any]) -> bool:
    """Creates a collection as a collection snapshot describes it; nothing if there is one of that name."""
    if name in state["collections"]:
        return False
    check_name(name)
    collection: Json = {"uid": secrets.token_hex(6), "config": config, "payload_schema": schema, "operation": 0,
                        "shards": {}, "keys": keys, "transfers": []}
    state["collections"][name] = collection
    for shard_id, key in sorted(shards.items(), key=lambda item: int(item[0])):
        place_shard(state, collection, int(shard_id), key, config["params"]["replication_factor"])
    return True


COMMANDS: dict[str, Callable[..., Any]] = {command.__name__: command for command in (
    add_peer, remove_peer, create_collection, update_collection, delete_collection, create_shard_key,
    delete_shard_key, create_index, delete_index, change_aliases, set_replicas, add_transfer, end_transfer,
    abort_transfer, restore_collection)}


# --- helpers ----------------------------------------------------------------------------------------------------


def place_shard(state: Json, collection: Json, shard_id: int, key: Any, factor: int,
                placement: list[int] | None = None) -> None:
    """Puts the shard's replicas on the peers that hold the fewest replicas of this collection, older peers first."""
    load = {peer: 0 for peer in (map(str, placement) if placement else state["peers"])}
    for shard in collection["shards"].values():
        for peer in shard["replicas"]:
            if peer in load:
                load[peer] += 1
    chosen = sorted(load, key=lambda peer: load[peer])[:factor]
    collection["shards"][str(shard_id)] = {"key": key, "replicas": {peer: ACTIVE for peer in chosen}}


def require_custom(collection: Json) -> None:
    if collection["config"]["params"].get("sharding_method") != "custom":
        raise bad_request("Shard Key cannot be created with Auto sharding method")
