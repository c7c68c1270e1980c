"""Qdrant's snapshot archives: an outer tar whose `segments/<id>.tar` members are tars of sparse files.

A segment folder is mostly holes (a 32 MiB memory-mapped chunk may hold 16 KiB), so files are written as
old GNU sparse entries, as Qdrant does. Python's tarfile reads those but cannot write them.
"""

import os
import shutil
import tarfile
from typing import Callable, Iterator

BLOCK = 512
COPY_SIZE = 4 << 20
NESTED_ROOT = "snapshot/files/"
Sink = Callable[[bytes], object]


class Entry:
    """One tar member whose archived size is known before a byte of it is written."""

    def __init__(self, name: str, header: bytes, size: int, write: Callable[[Sink], None]):
        self.name = name
        self.header = header
        self.size = size
        self.write = write

    def total(self) -> int:
        return len(self.header) + padded(self.size)


def padded(size: int) -> int:
    return -(-size // BLOCK) * BLOCK


def bytes_entry(name: str, data: bytes) -> Entry:
    info = tarfile.TarInfo(name)
    info.size = len(data)
    return Entry(name, info.tobuf(tarfile.GNU_FORMAT), len(data), lambda sink: ignore(sink(data)))


def folder_entry(name: str) -> Entry:
    info = tarfile.TarInfo(name)
    info.type = tarfile.DIRTYPE
    info.mode = 0o755
    return Entry(name, info.tobuf(tarfile.GNU_FORMAT), 0, lambda sink: None)


def file_entry(name: str, path: str) -> Entry:
    stat = os.stat(path)
    extents = data_extents(path, stat.st_size)
    stored = sum(length for _, length in extents)
    info = tarfile.TarInfo(name)
    info.mtime = int(stat.st_mtime)
    info.mode = 0o644
    info.size = stored
    header = info.tobuf(tarfile.GNU_FORMAT) if stored == stat.st_size else sparse_header(info, extents, stat.st_size)
    return Entry(name, header, stored, lambda sink: copy_extents(path, extents, sink))


def archive_entry(name: str, members: list[Entry]) -> Entry:
    """A whole tar as one member of another tar, streamed without a temporary file."""
    info = tarfile.TarInfo(name)
    info.size = archive_size(members)
    header = info.tobuf(tarfile.GNU_FORMAT)
    return Entry(name, header, info.size, lambda sink: write_archive(members, sink))


def archive_size(members: list[Entry]) -> int:
    return sum(member.total() for member in members) + 2 * BLOCK


def write_archive(members: list[Entry], sink: Sink) -> None:
    for member in members:
        sink(member.header)
        member.write(sink)
        sink(bytes(padded(member.size) - member.size))
    sink(bytes(2 * BLOCK))


def shard_entries(folder: str, prefix: str, replica_state: bytes) -> list[Entry]:
    """The members of a shard snapshot: segments, an empty WAL folder, and the two JSON files that come last."""
    segments = os.path.join(folder, "segments")
    entries: list[Entry] = []
    for segment in sorted(os.listdir(segments)):
        root = os.path.join(segments, segment)
        files = [file_entry(NESTED_ROOT + relative, os.path.join(root, relative)) for relative in walk(root)]
        entries.append(archive_entry(f"{prefix}segments/{segment}.tar", files))
    entries.append(folder_entry(f"{prefix}wal"))
    return entries + shard_tail(prefix, replica_state)


def shard_tail(prefix: str, replica_state: bytes) -> list[Entry]:
    return [
        bytes_entry(f"{prefix}replica_state.json", replica_state),
        bytes_entry(f"{prefix}shard_config.json", b'{"type":"ReplicaSet"}'),
    ]


def unpack(archive: str, target: str, prefix: str = "") -> bool:
    """Unpacks one shard (the members below `prefix`) into `target`; False if the archive has no data for it.

    Raises tarfile.TarError if the archive is not one or is cut short.
    """
    found = False
    ended = os.path.getsize(archive) % BLOCK == 0
    with tarfile.open(archive, "r:") as outer:
        for member in outer:
            if not member.name.startswith(prefix):
                continue
            name = member.name[len(prefix):]
            if name.startswith("segments/") and name.endswith(".tar") and member.isfile():
                found = True
                root = safe_path(target, name[: -len(".tar")])
                data = outer.extractfile(member)
                with tarfile.open(fileobj=data, mode="r:") as inner:
                    for file in inner:
                        if file.isfile():
                            extract(inner, file, safe_path(root, file.name.removeprefix(NESTED_ROOT)))
            elif member.isfile() and name and not name.startswith("segments/"):
                extract(outer, member, safe_path(target, name))
        if not ended:
            raise tarfile.ReadError("unexpected end of data")
    os.makedirs(os.path.join(target, "wal"), exist_ok=True)
    return found


def extract(tar: tarfile.TarFile, member: tarfile.TarInfo, path: str) -> None:
    os.makedirs(os.path.dirname(path), exist_ok=True)
    if member.sparse is None:
        source = tar.extractfile(member)
        with open(path, "wb") as out:
            shutil.copyfileobj(source, out, COPY_SIZE)
        if os.path.getsize(path) != member.size:
            raise tarfile.ReadError("unexpected end of data")
        return
    # Extent by extent, so that holes stay holes instead of being read as zeros.
    raw = tar.fileobj
    raw.seek(member.offset_data)
    with open(path, "wb") as out:
        for offset, length in member.sparse:
            out.seek(offset)
            while length > 0:
                chunk = raw.read(min(length, COPY_SIZE))
                if not chunk:
                    raise tarfile.ReadError("unexpected end of data")
                out.write(chunk)
                length -= len(chunk)
        out.truncate(member.size)


def safe_path(root: str, relative: str) -> str:
    path = os.path.normpath(os.path.join(root, relative))
    if not path.startswith(os.path.normpath(root) + os.sep):
        raise tarfile.ReadError(f"unsafe path {relative!r}")
    return path


def walk(root: str) -> Iterator[str]:
    for folder, folders, files in os.walk(root):
        folders.sort()
        for file in sorted(files):
            yield os.path.relpath(os.path.join(folder, file), root)


def data_extents(path: str, size: int) -> list[tuple[int, int]]:
    """(offset, length) of the parts that are not holes."""
    extents: list[tuple[int, int]] = []
    with open(path, "rb") as file:
        offset = 0
        while offset < size:
            try:
                start = os.lseek(file.fileno(), offset, os.SEEK_DATA)
                end = os.lseek(file.fileno(), start, os.SEEK_HOLE)
            except OSError as error:
                if error.errno == 6:  # ENXIO: only a hole is left
                    break
                return [(0, size)]
            end = min(end, size)
            if start >= end:
                break
            extents.append((start, end - start))
            offset = end
    return extents


def copy_extents(path: str, extents: list[tuple[int, int]], sink: Sink) -> None:
    with open(path, "rb", buffering=0) as file:
        for offset, length in extents:
            file.seek(offset)
            while length > 0:
                chunk = file.read(min(length, COPY_SIZE))
                if not chunk:
                    raise OSError(f"{path} became shorter while it was archived")
                sink(chunk)
                length -= len(chunk)


def sparse_header(info: tarfile.TarInfo, extents: list[tuple[int, int]], real_size: int) -> bytes:
    """An old GNU sparse header: 4 extents in the header, 21 in each block after it."""
    # The map ends with an empty extent at the end of the file, as GNU tar writes it.
    rest = [*extents, (real_size, 0)]
    info.type = tarfile.GNUTYPE_SPARSE
    raw = info.tobuf(tarfile.GNU_FORMAT)
    long_name, block = raw[:-BLOCK], bytearray(raw[-BLOCK:])
    head, rest = rest[:4], rest[4:]
    block[386 : 386 + 24 * len(head)] = b"".join(map(extent_field, head))
    block[482] = 1 if rest else 0
    block[483:495] = number_field(real_size)
    block[148:156] = b" " * 8
    block[148:156] = b"%06o\0 " % sum(block)
    blocks = [bytes(block)]
    while rest:
        part, rest = rest[:21], rest[21:]
        extension = bytearray(BLOCK)
        extension[: 24 * len(part)] = b"".join(map(extent_field, part))
        extension[504] = 1 if rest else 0
        blocks.append(bytes(extension))
    return long_name + b"".join(blocks)


def extent_field(extent: tuple[int, int]) -> bytes:
    return number_field(extent[0]) + number_field(extent[1])


def number_field(value: int) -> bytes:
    if value < 8**11:
        return b"%011o\0" % value
    return b"\x80" + value.to_bytes(11, "big")


def ignore(_: object) -> None:
    return None
