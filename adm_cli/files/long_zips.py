"""Zips of millions of files: a name costs its letters and a few numbers, not an object.

Python's own reader makes an object of thirty fields of each, 0.7 GB of a million. Here the
directory is read into arrays (APPNOTE.TXT 4.3 and 4.5.3), and a file when it is asked for.
"""

from __future__ import annotations

import bz2
import lzma
import os
import struct
import threading
import zipfile
import zlib
from array import array
from pathlib import Path

from adm_cli.files.budget import MOST_FILES, TooMuchError, check_bytes
from adm_cli.files.disk import open_file

MOST_DIRECTORY = 2**28  # bytes: of so many files with long names
_END = struct.Struct("<4s4H2LH")
_END_64 = struct.Struct("<4sQ2H2L4Q")
_LOCATOR = struct.Struct("<4sLQL")
_ENTRY = struct.Struct("<4s4B4H3L5H2L")
_LOCAL = struct.Struct("<4s2B4HL2L2H")
_ENCRYPTED, _UTF8 = 0x1, 0x800
_ALL_32 = 0xFFFFFFFF  # a number that stands in the entry's extra field


class LongZip:
    """The names of a zip's files, and each file's bytes; its folders are left out.

    Raises OSError, zipfile.BadZipFile for a damaged one, and TooMuchError.
    """

    def __init__(self, path: Path, most: int = MOST_FILES) -> None:
        self.names: list[str] = []  # as its directory says them: UTF-8, or cp437
        self.says_utf8 = bytearray()
        self._sizes, self._packed, self._offsets = array("Q"), array("Q"), array("Q")
        self._crcs, self._methods, self._flags = array("L"), array("H"), array("H")
        self._lock = threading.Lock()
        self._file = open_file(path)
        try:
            self._read_directory(most)
        except (struct.error, IndexError):
            self._file.close()
            raise zipfile.BadZipFile("its directory is damaged") from None
        except BaseException:
            self._file.close()
            raise

    def size(self, index: int) -> int:
        """Bytes of a file, as the directory says."""
        return self._sizes[index]

    def read(self, index: int, most: int) -> bytes:
        """A file's bytes, checked; raises as the constructor, also for more than ``most``."""
        check_bytes(self._sizes[index], most)
        if self._flags[index] & _ENCRYPTED:
            raise zipfile.BadZipFile("it is encrypted")
        check_bytes(self._packed[index], most)
        data = self._stored(index)
        try:
            data = _unfolded(data, self._methods[index], self._sizes[index] + 1)
        except (zlib.error, OSError, EOFError, lzma.LZMAError, struct.error) as error:
            raise zipfile.BadZipFile(f"it is damaged: {error}") from None
        if len(data) != self._sizes[index] or zlib.crc32(data) != self._crcs[index]:
            raise zipfile.BadZipFile("it is damaged: Bad CRC-32")
        return data

    def close(self) -> None:
        self._file.close()

    def __del__(self) -> None:  # as Python's own
        if hasattr(self, "_file"):
            self._file.close()

    def _stored(self, index: int) -> bytes:
        with self._lock:  # the position is one for all threads
            self._file.seek(self._offsets[index])
            local = self._file.read(_LOCAL.size)
            if len(local) < _LOCAL.size or local[:4] != b"PK\3\4":
                raise zipfile.BadZipFile("its place is damaged")
            self._file.seek(sum(_LOCAL.unpack(local)[-2:]), os.SEEK_CUR)
            return self._file.read(self._packed[index])

    def _read_directory(self, most: int) -> None:
        start, size, moved = self._find_directory()
        check_bytes(size, MOST_DIRECTORY)
        self._file.seek(start)
        data = self._file.read(size)
        place = 0
        while place < len(data):
            fields = _ENTRY.unpack_from(data, place)
            if fields[0] != b"PK\1\2":
                raise zipfile.BadZipFile("its directory is damaged")
            if len(self.names) >= most:
                raise TooMuchError(f"over {most:,} files")
            flags, method, crc, packed, unpacked = fields[5], fields[6], *fields[9:12]
            length, extra, comment = fields[12:15]
            name = data[place + _ENTRY.size : place + _ENTRY.size + length]
            end = place + _ENTRY.size + length
            offset = fields[18]
            if _ALL_32 in (packed, unpacked, offset):
                unpacked, packed, offset = _long(data[end : end + extra], unpacked, packed, offset)
            place = end + extra + comment
            if name.endswith(b"/"):
                continue
            text = name.decode("utf-8" if flags & _UTF8 else "cp437", "replace")
            self.names.append(text.partition("\0")[0])
            self.says_utf8.append(bool(flags & _UTF8))
            self._sizes.append(unpacked)
            self._packed.append(packed)
            self._offsets.append(offset + moved)
            self._crcs.append(crc)
            self._methods.append(method)
            self._flags.append(flags)

    def _find_directory(self) -> tuple[int, int, int]:
        """Where it begins, its bytes, and how many bytes somebody put before the zip."""
        whole = self._file.seek(0, os.SEEK_END)
        tail_start = max(0, whole - _END.size - 0xFFFF)
        self._file.seek(tail_start)
        tail = self._file.read(whole - tail_start)
        found = tail.rfind(b"PK\5\6")
        if found < 0:
            raise zipfile.BadZipFile("it is no zip, or cut short")
        size, offset = _END.unpack_from(tail, found)[5:7]
        end = tail_start + found
        self._file.seek(max(0, end - _LOCATOR.size))
        locator = self._file.read(_LOCATOR.size)
        if locator[:4] == b"PK\6\7":
            self._file.seek(end - _LOCATOR.size - _END_64.size)
            long = self._file.read(_END_64.size)
            if long[:4] == b"PK\6\6":
                size, offset = _END_64.unpack(long)[8:10]
                end -= _LOCATOR.size + _END_64.size
        if size > end:
            raise zipfile.BadZipFile("its directory is damaged")
        return end - size, size, end - size - offset


def _unfolded(data: bytes, method: int, most: int) -> bytes:
    """What was compressed, at most so many bytes of it."""
    if method == zipfile.ZIP_STORED:
        return data
    if method == zipfile.ZIP_DEFLATED:
        return zlib.decompressobj(-zlib.MAX_WBITS).decompress(data, most)
    if method == zipfile.ZIP_BZIP2:
        return bz2.BZ2Decompressor().decompress(data, most)
    if method == zipfile.ZIP_LZMA:  # behind its version and the length of its settings
        start, settings, window = 9, *struct.unpack_from("<BL", data, 4)
        rows, literal = divmod(settings, 9)
        how = {"id": lzma.FILTER_LZMA1, "lc": literal, "lp": rows % 5, "pb": rows // 5,
               "dict_size": max(4096, min(window, most))}  # fmt: skip  # memory taken at once
        return lzma.LZMADecompressor(lzma.FORMAT_RAW, filters=[how]).decompress(data[start:], most)
    raise zipfile.BadZipFile("it is compressed in a way that is not read: zip it anew")


def _long(extra: bytes, unpacked: int, packed: int, offset: int) -> tuple[int, int, int]:
    """The numbers that the 64-bit field of an entry holds, in this order, where one is all ones."""
    while len(extra) >= 4:
        kind, length = struct.unpack_from("<2H", extra)
        if kind == 1:
            numbers = list(struct.unpack_from(f"<{length // 8}Q", extra, 4))
            unpacked, packed, offset = (
                numbers.pop(0) if value == _ALL_32 else value
                for value in (unpacked, packed, offset)
            )
            break
        extra = extra[4 + length :]
    return unpacked, packed, offset
