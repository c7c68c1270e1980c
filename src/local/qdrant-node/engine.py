"""Translates between Qdrant's REST JSON and the objects of the engine library."""

import base64
import uuid
from array import array
from typing import Any

import qdrant_edge as edge

from errors import format_error, wrong_input

Json = dict[str, Any]
DISTANCES = {name: getattr(edge.Distance, name) for name in ("Cosine", "Euclid", "Dot", "Manhattan")}
DATATYPES = {
    "float32": edge.VectorStorageDatatype.Float32,
    "float16": edge.VectorStorageDatatype.Float16,
    "uint8": edge.VectorStorageDatatype.Uint8,
}
SCHEMA_TYPES = {name.lower(): getattr(edge.PayloadSchemaType, name) for name in
                ("Keyword", "Integer", "Float", "Geo", "Text", "Bool", "Datetime", "Uuid")}


def dense_vectors(params: Json) -> dict[str, Json]:
    """Vector name to parameters; the unnamed vector is called ''."""
    vectors = params.get("vectors") or {}
    return {"": vectors} if "size" in vectors and not isinstance(vectors["size"], dict) else vectors


def shard_config(params: Json) -> edge.EdgeConfig:
    vectors = {
        name: edge.EdgeVectorParams(
            size=spec["size"],
            distance=DISTANCES[spec["distance"]],
            multivector_config=edge.MultiVectorConfig(edge.MultiVectorComparator.MaxSim)
            if spec.get("multivector_config") else None,
            datatype=DATATYPES.get(spec.get("datatype") or "", None),
            quantization_config=quantization(spec.get("quantization_config")),
        )
        for name, spec in dense_vectors(params).items()
    }
    sparse = {
        name: edge.EdgeSparseVectorParams(modifier=edge.Modifier.Idf if (spec or {}).get("modifier") == "idf" else None)
        for name, spec in (params.get("sparse_vectors") or {}).items()
    }
    return edge.EdgeConfig(vectors=vectors or None, sparse_vectors=sparse or None, max_search_threads=1,
                           quantization_config=quantization(params.get("quantization_config")))


def quantization(spec: Json | None) -> Any:
    """What the engine is to quantise. It does so when it optimises, which this node never asks it to: the configuration
    travels with the shard, quantised vectors there are none."""
    if scalar := (spec or {}).get("scalar"):
        return edge.ScalarQuantizationConfig(edge.ScalarType.Int8, quantile=scalar.get("quantile"))
    if "binary" in (spec or {}):
        return edge.BinaryQuantizationConfig()
    return None


def field_schema(schema: Any) -> Any:
    if isinstance(schema, str):
        return SCHEMA_TYPES[schema]
    kind = schema["type"]
    options = {key: value for key, value in schema.items()
               if key in ("is_tenant", "on_disk", "lookup", "range", "is_principal") and value is not None}
    params = {"keyword": edge.KeywordIndexParams, "integer": edge.IntegerIndexParams, "float": edge.FloatIndexParams,
              "geo": edge.GeoIndexParams, "bool": edge.BoolIndexParams, "datetime": edge.DatetimeIndexParams,
              "uuid": edge.UuidIndexParams}.get(kind)
    if params is None:
        return SCHEMA_TYPES[kind]
    try:
        return params(**options)
    except TypeError as error:
        raise wrong_input(f"field_schema: {error}") from error


def schema_name(kind: Any) -> str:
    return str(kind).rsplit(".", 1)[-1].lower()


# --- points -----------------------------------------------------------------------------------------------------


def point_id(value: Any) -> int | str:
    if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**64:
        return value
    if isinstance(value, str):
        try:
            return str(uuid.UUID(value))
        except ValueError:
            pass
    raise format_error(
        f"value {value} is not a valid point ID, valid values are either an unsigned integer or a UUID")


def plain_id(value: Any) -> int | str:
    return value if isinstance(value, int) else str(value)


def id_order(value: int | str) -> tuple[int, int | str]:
    """Qdrant orders numbers before UUIDs."""
    return (0, value) if isinstance(value, int) else (1, value)


def check_vector(params: Json, vector: Any) -> None:
    """Refuses what the engine would refuse, before it is written to the engine's log on any replica."""
    dense = dense_vectors(params)
    named = {"": vector} if not isinstance(vector, dict) else vector
    for name, value in named.items():
        if isinstance(value, dict) and "f32" not in value:
            if name not in (params.get("sparse_vectors") or {}):
                raise wrong_input(f"Not existing vector name error: {name}")
            continue
        spec = dense.get(name)
        if spec is None:
            raise wrong_input(f"Not existing vector name error: {name}")
        rows = value if value and isinstance(value[0], list) else [value]
        for row in rows:
            if len(row) != spec["size"]:
                raise wrong_input(f"Vector dimension error: expected dim: {spec['size']}, got {len(row)}")


def pack_vector(vector: Any) -> Any:
    """Dense vectors travel between peers as base64 of float32, which is what the engine stores anyway."""
    if isinstance(vector, list) and vector and not isinstance(vector[0], list):
        return {"f32": base64.b64encode(array("f", vector)).decode()}
    if isinstance(vector, dict):
        return {name: pack_vector(value) if isinstance(value, list) else value for name, value in vector.items()}
    return vector


def engine_vector(vector: Any) -> Any:
    if isinstance(vector, dict):
        if isinstance(vector.get("f32"), str):
            return array("f", base64.b64decode(vector["f32"])).tolist()
        if "indices" in vector and "values" in vector:
            return edge.SparseVector(vector["indices"], vector["values"])
        return {name: engine_vector(value) for name, value in vector.items()}
    return vector


def plain_vector(vector: Any) -> Any:
    if isinstance(vector, dict):
        return {name: plain_vector(value) for name, value in vector.items()}
    if isinstance(vector, edge.SparseVector):
        return {"indices": list(vector.indices), "values": list(vector.values)}
    return vector


def plain_record(record: Any, with_payload: Any, with_vector: Any) -> Json:
    plain: Json = {"id": plain_id(record.id)}
    if with_payload:
        plain["payload"] = record.payload if record.payload is not None else {}
    if with_vector:
        plain["vector"] = plain_vector(record.vector) if record.vector is not None else {}
    return plain


def update_operation(op: Json) -> Any:
    """One write, as it travels between peers, as an engine operation."""
    kind = op["type"]
    make = edge.UpdateOperation
    if kind == "upsert":
        return make.upsert_points(
            [edge.Point(point["id"], engine_vector(point["vector"]), point.get("payload")) for point in op["points"]])
    if kind == "update_vectors":
        return make.update_vectors([edge.PointVectors(p["id"], engine_vector(p["vector"])) for p in op["points"]])
    if kind == "create_index":
        return make.create_field_index(op["field"], field_schema(op["schema"]))
    if kind == "delete_index":
        return make.delete_field_index(op["field"])
    suffix, target = ("", op["ids"]) if "ids" in op else ("_by_filter", engine_filter(op["filter"]))
    if kind == "delete":
        return getattr(make, "delete_points" + suffix)(target)
    if kind in ("set_payload", "overwrite_payload"):
        return getattr(make, kind + suffix)(target, op["payload"], op.get("key"))
    if kind == "delete_payload":
        return getattr(make, kind + suffix)(target, op["keys"])
    if kind == "clear_payload":
        return getattr(make, kind + suffix)(target)
    if kind == "delete_vectors":
        return getattr(make, kind + suffix)(target, op["vectors"])
    raise ValueError(f"unknown write {kind}")


# --- filters and selectors --------------------------------------------------------------------------------------


def engine_filter(spec: Json | None) -> Any:
    if spec is None:
        return None
    unknown = set(spec) - {"must", "should", "must_not", "min_should"}
    if unknown:
        raise format_error(f"unknown field `{sorted(unknown)[0]}`, expected a filter")
    minimum = spec.get("min_should")
    return edge.Filter(
        must=conditions(spec.get("must")),
        should=conditions(spec.get("should")),
        must_not=conditions(spec.get("must_not")),
        min_should=edge.MinShould(conditions(minimum["conditions"]), minimum["min_count"]) if minimum else None,
    )


def conditions(specs: Any) -> Any:
    if specs is None:
        return None
    return [condition(spec) for spec in (specs if isinstance(specs, list) else [specs])]


def condition(spec: Json) -> Any:
    if "key" in spec:
        return field_condition(spec)
    if "has_id" in spec:
        return edge.HasIdCondition({point_id(value) for value in spec["has_id"]})
    if "is_empty" in spec:
        return edge.IsEmptyCondition(spec["is_empty"]["key"])
    if "is_null" in spec:
        return edge.IsNullCondition(spec["is_null"]["key"])
    if "has_vector" in spec:
        return edge.HasVectorCondition(spec["has_vector"])
    if "nested" in spec:
        return edge.NestedCondition(spec["nested"]["key"], engine_filter(spec["nested"]["filter"]))
    return engine_filter(spec)


def field_condition(spec: Json) -> Any:
    options: Json = {}
    if match := spec.get("match"):
        makers = {"value": edge.MatchValue, "text": edge.MatchText, "text_any": edge.MatchTextAny,
                  "phrase": edge.MatchPhrase, "any": edge.MatchAny, "except": edge.MatchExcept}
        kind = next((name for name in makers if name in match), None)
        if kind is None:
            raise format_error("data did not match any variant of untagged enum Match")
        options["match"] = makers[kind](match[kind])
    if limits := spec.get("range"):
        bounds = {key: limits.get(key) for key in ("gte", "gt", "lte", "lt")}
        dates = any(isinstance(value, str) for value in bounds.values())
        options["range"] = (edge.RangeDateTime if dates else edge.RangeFloat)(**bounds)
    if box := spec.get("geo_bounding_box"):
        options["geo_bounding_box"] = edge.GeoBoundingBox(geo_point(box["top_left"]), geo_point(box["bottom_right"]))
    if circle := spec.get("geo_radius"):
        options["geo_radius"] = edge.GeoRadius(geo_point(circle["center"]), circle["radius"])
    if counts := spec.get("values_count"):
        options["values_count"] = edge.ValuesCount(**counts)
    if not options:
        raise format_error("Validation error: at least one field condition must be specified")
    return edge.FieldCondition(spec["key"], **options)


def geo_point(spec: Json) -> Any:
    return edge.GeoPoint(spec["lon"], spec["lat"])


def payload_selector(spec: Any) -> Any:
    if isinstance(spec, dict):
        if "include" in spec:
            return edge.PayloadSelector.Include(spec["include"])
        return edge.PayloadSelector.Exclude(spec["exclude"])
    return spec
