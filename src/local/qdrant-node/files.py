"""Durable small files."""

import os
import secrets


def write_atomic(path: str, data: bytes) -> None:
    """Replaces `path` so that a crash leaves the old bytes or the new ones."""
    temporary = f"{path}.{secrets.token_hex(4)}.tmp"
    with open(temporary, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    os.replace(temporary, path)
