"""Named files in an object store, or at any other URI that pyarrow opens."""

from __future__ import annotations

import contextlib
import os
import time
from pathlib import Path

from spinenas.results.storage.atomic_write import write_bytes_atomically
from spinenas.space.errors import UserError, first_line

TRIES = 5
"""Attempts at a write that fails, with waits of 1, 2, 4 and 8 seconds between them."""

PROBE = "write-check"
"""Name of the file that a check writes and removes."""


def _lacks_bucket(error: OSError) -> bool:
    """Whether the storage said that the bucket does not exist."""
    text = str(error)
    return "NO_SUCH_BUCKET" in text or "NoSuchBucket" in text or "bucket does not exist" in text.lower()


class Store:
    """Named files under a URI; each is written whole or not at all."""

    def __init__(self, uri: str) -> None:
        """Take the URI; nothing is read or written yet. Raises UserError if pyarrow cannot open it."""
        from pyarrow import ArrowException
        from pyarrow.fs import FileSystem

        self.uri = uri
        try:
            self._system, self._root = FileSystem.from_uri(uri)
        except (ArrowException, OSError, ValueError) as error:
            raise UserError(
                f"storage.mirror {uri!r} cannot be opened: {first_line(error)}; "
                "give a URI such as s3://bucket/run, gs://bucket/run or file:///mnt/shared/run"
            ) from error
        self._is_local = self._system.type_name == "local"

    def check(self) -> None:
        """Raise UserError unless the bucket exists and a file can be written, before anything depends on it.

        A path of this machine is checked without writing.
        """
        if self._is_local:
            place = next(folder for folder in (Path(self._root), *Path(self._root).parents) if folder.exists())
            if not place.is_dir() or not os.access(place, os.W_OK | os.X_OK):
                raise UserError(f"storage.mirror {self.uri!r} cannot be written: {place}; choose another place")
            return
        bucket = self._root.partition("/")[0]
        try:
            self._write(f"{self._root}/{PROBE}", b"spinenas")
        except OSError as error:
            if _lacks_bucket(error):
                raise UserError(
                    f"storage.mirror {self.uri!r}: there is no bucket {bucket!r}{self._where()}; create it, or correct "
                    "its name or the endpoint (AWS_ENDPOINT_URL)"
                ) from error
            raise UserError(
                f"storage.mirror {self.uri!r} cannot be written{self._where()}: {first_line(error)}; check the "
                "credentials (AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or GOOGLE_APPLICATION_CREDENTIALS), their "
                "rights, and the endpoint (AWS_ENDPOINT_URL)"
            ) from error
        self.remove(PROBE)

    def _where(self) -> str:
        """Return " at ENDPOINT" for S3-compatible storage that is not Amazon's."""
        endpoint = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL")
        return f" at {endpoint}" if endpoint and self._system.type_name == "s3" else ""

    def write(self, name: str, data: bytes) -> None:
        """Write a file, with up to TRIES attempts. Raises UserError."""
        for wait in [*(2.0**n for n in range(TRIES - 1)), None]:
            try:
                self._write(f"{self._root}/{name}", data)
                return
            except OSError as error:
                if wait is None:
                    raise UserError(
                        f"cannot write {self.uri}/{name}: {first_line(error)}; when it can be written again, "
                        "resume the run, which continues from what is stored there"
                    ) from error
                time.sleep(wait)

    def _write(self, path: str, data: bytes) -> None:
        if self._is_local:
            Path(path).parent.mkdir(parents=True, exist_ok=True)
            write_bytes_atomically(Path(path), data)
            return
        with self._system.open_output_stream(path) as stream:  # an object appears when its stream is closed
            stream.write(data)

    def read(self, name: str) -> bytes | None:
        """Return the bytes of a file; None if there is none. Raises UserError."""
        try:
            with self._system.open_input_stream(f"{self._root}/{name}") as stream:
                return bytes(stream.read())
        except FileNotFoundError:
            return None
        except OSError as error:
            raise UserError(
                f"cannot read {self.uri}/{name}: {first_line(error)}; try again when it can be reached"
            ) from error

    def names(self, folder: str) -> list[str]:
        """Names of all files below a folder, sorted. Raises UserError."""
        from pyarrow.fs import FileSelector, FileType

        try:
            found = self._system.get_file_info(
                FileSelector(f"{self._root}/{folder}", recursive=True, allow_not_found=True)
            )
        except OSError as error:
            raise UserError(
                f"cannot list {self.uri}/{folder}: {first_line(error)}; try again when it can be reached"
            ) from error
        start = len(self._root) + 1
        # A killed writer to a plain path leaves a partial file behind; its name begins with a dot.
        files = [info for info in found if info.type == FileType.File and not info.base_name.startswith(".")]
        return sorted(info.path[start:] for info in files)

    def remove(self, name: str) -> None:
        """Remove a file that is no longer needed; failures are ignored."""
        with contextlib.suppress(OSError):
            self._system.delete_file(f"{self._root}/{name}")
