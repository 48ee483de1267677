"""Zip files of strangers: their directory is bounded before it is read, entry by entry."""

from __future__ import annotations

import zipfile
from pathlib import Path

from adm_cli.files.budget import MOST_FILES, LimitedFile
from adm_cli.files.disk import open_file

_MOST_DIRECTORY = 2**28  # bytes: of so many files with long names
_ENTRY = b"PK\x01\x02"  # begins each in the directory (APPNOTE.TXT 4.3.12)


class ForeignZip(zipfile.ZipFile):
    """A zip to read, of `MOST_FILES` at most.

    Raises OSError, ValueError and what else `zipfile` raises for a damaged one.
    """

    def __init__(self, path: Path, entries: int = MOST_FILES) -> None:
        self._opened = open_file(path)
        try:
            # the library reads the whole directory at once, whatever its length is said to be;
            # the files themselves it reads in small parts
            super().__init__(
                LimitedFile(self._opened, _MOST_DIRECTORY, mark=_ENTRY, entries=entries)
            )
        except BaseException:
            self._opened.close()
            raise

    def close(self) -> None:
        super().close()
        self._opened.close()
