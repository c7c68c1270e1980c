"""The digest of one point, byte for byte that of src/clients/point-digest.ts.

SHA-256 over a canonical form: each value has a letter for its kind and, where its length varies, a length before it.
Numbers are doubles, because JSON does not tell 1 from 1.0 and readers round large integers; elements of vectors are
the float32 that the engine stores. Keys of objects are in the order of their UTF-8 bytes.
"""

import hashlib
import struct
from typing import Any


def digest(payload: Any, vectors: Any) -> str:
    out = bytearray()
    write_value(out, payload or {})
    write_vectors(out, vectors)
    return hashlib.sha256(out).hexdigest()


def write_value(out: bytearray, value: Any) -> None:
    if value is None:
        out += b"n"
    elif value is True:
        out += b"t"
    elif value is False:
        out += b"f"
    elif isinstance(value, (int, float)):
        out += b"d" + struct.pack(">d", float(value) + 0.0)  # + 0.0 makes -0.0 a 0.0
    elif isinstance(value, str):
        write_text(out, value)
    elif isinstance(value, dict):
        out += b"o" + struct.pack(">I", len(value))
        for key in sorted(value, key=lambda name: name.encode()):
            write_text(out, key)
            write_value(out, value[key])
    else:
        out += b"l" + struct.pack(">I", len(value))
        for item in value:
            write_value(out, item)


def write_text(out: bytearray, text: str) -> None:
    raw = text.encode()
    out += b"s" + struct.pack(">I", len(raw)) + raw


def write_vectors(out: bytearray, vectors: Any) -> None:
    """All vectors of the point; one without a name is called ''."""
    named = vectors if isinstance(vectors, dict) else {"": vectors} if vectors is not None else {}
    out += b"v" + struct.pack(">I", len(named))
    for name in sorted(named, key=lambda text: text.encode()):
        write_text(out, name)
        write_vector(out, named[name])


def write_vector(out: bytearray, vector: Any) -> None:
    if hasattr(vector, "indices"):
        entries = sorted(zip(vector.indices, vector.values))
        out += b"p" + struct.pack(">I", len(entries))
        for index, value in entries:
            out += struct.pack(">If", index, value + 0.0)
    elif len(vector) > 0 and not isinstance(vector[0], (int, float)):
        out += b"m" + struct.pack(">I", len(vector))
        for row in vector:
            write_dense(out, row)
    else:
        write_dense(out, vector)


def write_dense(out: bytearray, vector: Any) -> None:
    out += b"x" + struct.pack(f">I{len(vector)}f", len(vector), *(value + 0.0 for value in vector))
