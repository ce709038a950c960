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

    def open(self) -> str | None:
        """Prepare the folder, with the checkpoint of an earlier attempt; return the problem if it cannot be used."""
        try:
            if self._mirror is None:
                return _problem(self.folder)
            self.folder.mkdir(parents=True, exist_ok=True)
            checkpoint = Store(self._mirror).read(self._name)
            if checkpoint is not None:
                write_bytes_atomically(self.folder / CHECKPOINT, checkpoint)
        except OSError as error:
            return f"{self.folder} cannot be written on its machine ({error.strerror})"
        except UserError as error:
            return str(error)
        return None

    def keep(self) -> str | None:
        """Copy a new checkpoint to the mirror; return the problem if that fails."""
        if self._mirror is None:
            return None
        path = self.folder / CHECKPOINT
        try:
            written = path.stat().st_mtime
            if written != self._kept:
                Store(self._mirror).write(self._name, path.read_bytes())
                self._kept = written
        except FileNotFoundError:
            return None  # this task writes no checkpoint
        except (OSError, UserError) as error:
            return str(error)
        return None

    def close(self) -> None:
        """Remove the local scratch folder."""
        if self._mirror is not None:
            shutil.rmtree(self.folder, ignore_errors=True)
            with contextlib.suppress(OSError):  # it may hold other trials
                self.folder.parent.rmdir()


def _problem(folder: Path) -> str | None:
    """Return why the trial's folder, which the driver has just made, cannot be used here; None if it can."""
    if not folder.is_dir():
        return f"its machine does not see {folder}"
    probe = folder / f".probe-{os.getpid()}"
    try:
        probe.write_bytes(b"spinenas")
    except OSError as error:
        return f"{folder} cannot be written on its machine ({error.strerror})"
    with contextlib.suppress(OSError):
        probe.unlink()
    return None
