"""The folder of a run: where each of its files is.

config.toml      the configuration as given
config.json      the configuration resolved
run.json         kind ("search" or "replay"), versions, device, data fingerprint, runs of its warm start
journal.jsonl    events of the run (`journal.py`)
trials/NNNNNN/   one folder per trial: curve.json, logs, weights, and a checkpoint while it runs
replay.json      of a replay: the architecture and its figures on val
validation.json  of a validation: all its figures; its trials have val_detections.npz
"""

from __future__ import annotations

import contextlib
import json
import os
import shlex
import shutil
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from spinenas.results.storage.atomic_write import remove_partials, sync_folder, write_text_atomically
from spinenas.space.errors import UserError, explained_os_errors

CHECKPOINT = "checkpoint.safetensors"
"""Name of the file in a trial's folder from which its next attempt continues."""

VAL_DETECTIONS = "val_detections.npz"
"""Name of the file with the detections on val, in a trial's folder of a validation."""


@dataclass(frozen=True, slots=True)
class RunFolder:
    """The files of one run; made by `create` or `open`.

    Attributes:
        path: the folder.
    """

    path: Path

    @classmethod
    def create(
        cls,
        path: Path,
        config_toml: str,
        config_json: dict[str, Any],
        run_json: dict[str, Any],
        *,
        begin: Callable[[Path], None] = lambda folder: None,
    ) -> RunFolder:
        """Make the folder of a new run, with its journal, whole or not at all. Raises UserError.

        Args:
            begin: called with the folder before it is moved to its place, to write the first events.
        """
        cls.check_free(path)
        # Prepared beside its place and moved there in one step: a crash leaves no partial run.
        target = path.absolute()
        partial = target.with_name(f".{target.name}.{os.getpid()}.partial")
        # A killed process may have had the same id: in a container all have.
        shutil.rmtree(partial, ignore_errors=True)
        try:
            with explained_os_errors(f"cannot make the run folder {path}", "choose a folder that can be written"):
                target.parent.mkdir(parents=True, exist_ok=True)
                (partial / "trials").mkdir(parents=True)
                write_text_atomically(partial / "config.toml", config_toml)
                write_text_atomically(partial / "config.json", _printed(config_json))
                write_text_atomically(partial / "run.json", _printed(run_json))
                write_text_atomically(partial / "journal.jsonl", "")
                begin(partial)
                os.rename(partial, target)
                sync_folder(target.parent)
        finally:
            shutil.rmtree(partial, ignore_errors=True)  # nothing there after success
        return cls(path)

    @staticmethod
    def check_free(path: Path) -> None:
        """Raise UserError unless a run can be made there; call it before costly work."""
        if (path / "journal.jsonl").exists():
            raise UserError(
                f"{path} already holds a run; choose another folder, or resume it with: "
                f"spinenas resume {shlex.quote(str(path))}"
            )
        if path.exists() and (not path.is_dir() or any(path.iterdir())):
            raise UserError(f"{path} exists and is not an empty folder; choose another folder for the run")

    @classmethod
    def open(cls, path: Path) -> RunFolder:
        """Open the folder of an existing run. Raises UserError."""
        folder = cls(path)
        if not path.exists():
            raise UserError(f"{path} does not exist; name a folder that a search has written")
        for name in ("config.json", "run.json", "journal.jsonl"):
            if not (path / name).is_file():
                raise UserError(f"{path} is no run, it has no {name}; name a folder that a search has written")
        return folder

    @property
    def journal_path(self) -> Path:
        return self.path / "journal.jsonl"

    def trial_folder(self, number: int) -> Path:
        """The folder of one trial, made if needed. Raises UserError."""
        folder = self._trial_path(number)
        with _writing(folder):
            # Without parents: a removed run is not made again.
            folder.parent.mkdir(exist_ok=True)
            folder.mkdir(exist_ok=True)
        return folder

    def config(self) -> dict[str, Any]:
        """The resolved configuration. Raises UserError."""
        return _read_object(self.path / "config.json")

    def write_config(self, config_json: dict[str, Any], config_toml: str | None = None) -> list[Path]:
        """Replace config.json, and config.toml unless it is None; return both. Raises UserError."""
        paths = [self.path / "config.json"]
        _write_json(paths[0], config_json)
        if config_toml is not None:
            paths.append(self.path / "config.toml")
            with _writing(paths[1]):
                write_text_atomically(paths[1], config_toml)
        return paths

    def run_info(self) -> dict[str, Any]:
        """Contents of run.json, as written at the start. Raises UserError."""
        return _read_object(self.path / "run.json")

    def write_curve(self, number: int, curve: tuple[dict[str, float], ...]) -> Path:
        """Write `Evaluation.curve` of a trial, one entry per epoch, and return its file.

        Raises UserError.
        """
        path = self.trial_folder(number) / "curve.json"
        _write_json(path, list(curve))
        return path

    def checkpointed_trials(self) -> list[int]:
        """Numbers of the trials that have a checkpoint."""
        return sorted(int(path.parent.name) for path in self.path.glob(f"trials/[0-9]*/{CHECKPOINT}"))

    def remove_checkpoint(self, number: int) -> Path:
        """Remove what a trial that is finished has left of checkpoints, as far as that can be; return the file."""
        path = self._trial_path(number) / CHECKPOINT
        with contextlib.suppress(OSError):
            path.unlink(missing_ok=True)
            remove_partials(path)
        return path

    def write_replay(self, document: dict[str, Any]) -> None:
        """Keep what a replay measured on val. Raises UserError."""
        _write_json(self.path / "replay.json", document)

    def read_replay(self) -> dict[str, Any] | None:
        """Return what `write_replay` kept; None before. Raises UserError."""
        path = self.path / "replay.json"
        return _read_object(path) if path.exists() else None

    def write_validation(self, document: dict[str, Any]) -> None:
        """Keep what a validation found; once it is there, val is not looked at again. Raises UserError."""
        _write_json(self.path / "validation.json", document)

    def read_validation(self) -> dict[str, Any] | None:
        """Return what `write_validation` kept; None before. Raises UserError."""
        path = self.path / "validation.json"
        return _read_object(path) if path.exists() else None

    def read_curve(self, number: int) -> tuple[dict[str, float], ...]:
        """Return what `write_curve` kept; empty if the trial has no curve. Raises UserError."""
        path = self._trial_path(number) / "curve.json"
        if not path.exists():
            return ()
        curve = _read_json(path)
        if not isinstance(curve, list):
            raise UserError(f"{path} is damaged, a list was expected; delete it to go on without this curve")
        return tuple(curve)

    def _trial_path(self, number: int) -> Path:
        return self.path / "trials" / f"{number:06d}"


def _printed(data: Any) -> str:
    return json.dumps(data, indent=2, allow_nan=False) + "\n"


def _write_json(path: Path, data: Any) -> None:
    with _writing(path):
        write_text_atomically(path, _printed(data))


def _writing(path: Path) -> AbstractContextManager[None]:
    remedy = "put that right, then resume the search or run the replay again"
    return explained_os_errors(f"cannot write {path}", remedy)


def _read_json(path: Path) -> Any:
    try:
        return json.loads(path.read_bytes())
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}; is the run folder whole?") from error
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path} is damaged, it is not JSON; restore it from a copy of the run") from error


def _read_object(path: Path) -> dict[str, Any]:
    data = _read_json(path)
    if not isinstance(data, dict):
        raise UserError(f"{path} is damaged, an object was expected; restore it from a copy of the run")
    return data
