"""Checkpoint storage of an attempt: the run's folder, or a local folder and the run's mirror."""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import tempfile
from pathlib import Path

from spinenas.results.storage.atomic_write import write_bytes_atomically
from spinenas.results.storage.object_store import Store
from spinenas.results.storage.run_folder import CHECKPOINT
from spinenas.space.errors import UserError


class TrialStorage:
    """The folder of one attempt, as the task sees it.

    Attributes:
        folder: the trial's folder in the run, which all machines must see; with a mirror, a local scratch folder.
    """

    def __init__(self, folder: Path, mirror: str | None) -> None:
        """Choose the folder; `open` makes it ready.

        Args:
            folder: the trial's folder in the run, made by the driver.
            mirror: URI of the run's mirror, if it has one.
        """
        self.folder, self._mirror = folder, mirror
        self._kept: float | None = None
        if mirror is not None:
            name = hashlib.sha256(mirror.encode()).hexdigest()[:16]
            self.folder = Path(tempfile.gettempdir()) / f"spinenas-{name}" / folder.name
            self._name = f"trials/{folder.name}/{CHECKPOINT}"

    def open(self) -> None:
        """Prepare the folder, with the checkpoint of an earlier attempt. Raises UserError if it cannot be used."""
        try:
            if self._mirror is None:
                _check_writable(self.folder)
                return
            self.folder.mkdir(parents=True, exist_ok=True)
            checkpoint = Store(self._mirror).read(self._name)
            if checkpoint is not None:
                write_bytes_atomically(self.folder / CHECKPOINT, checkpoint)
        except OSError as error:
            raise UserError(f"{self.folder} cannot be written on its machine ({error.strerror})") from error

    def keep(self) -> None:
        """Copy a new checkpoint to the mirror. Raises UserError or OSError."""
        if self._mirror is None:
            return
        path = self.folder / CHECKPOINT
        with contextlib.suppress(FileNotFoundError):  # some tasks write no checkpoint
            written = path.stat().st_mtime
            if written != self._kept:
                Store(self._mirror).write(self._name, path.read_bytes())
                self._kept = written

    def close(self) -> None:
        """Remove the local scratch folder."""
        if self._mirror is not None:
            shutil.rmtree(self.folder, ignore_errors=True)
            with contextlib.suppress(OSError):  # it may hold other trials
                self.folder.parent.rmdir()


def _check_writable(folder: Path) -> None:
    """Raise UserError or OSError unless the trial's folder, which the driver has just made, can be used here."""
    if not folder.is_dir():
        raise UserError(f"its machine does not see {folder}")
    probe = folder / f".probe-{os.getpid()}"
    probe.write_bytes(b"spinenas")
    with contextlib.suppress(OSError):
        probe.unlink()
