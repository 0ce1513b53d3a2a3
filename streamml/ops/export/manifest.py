"""The folder of an export: what was asked for, and what of it is done."""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from streamml.errors import ConfigError
from streamml.ops.replay.replay import Span

# Readers of whole folders pass names over that begin so.
_MANIFEST: Final = "_manifest.json"
_WORK: Final = "_work"
_LOCK: Final = "_lock"
_VERSION: Final = 1


@dataclass(slots=True)
class Manifest:
    """What an export is, and how far it is. It is written anew after each piece, so that a process that was killed goes on.

    Args:
        folder: where it is.
        asked: as the user did; another command must not go on with it.
        spans: what it reads.
        topic_ids: of the source's topics.
        bounds: what of other topics belongs to it, by topic and partition: first offset, and the one behind the last.
        done: facts by piece.
        finished: whether all is there.
    """

    folder: Path
    asked: dict[str, Any]
    spans: tuple[Span, ...] = ()
    topic_ids: dict[str, str] = field(default_factory=dict)
    bounds: dict[str, dict[str, tuple[int, int]]] = field(default_factory=dict)
    done: dict[str, dict[str, Any]] = field(default_factory=dict)
    finished: bool = False

    @property
    def work(self) -> Path:
        """Folder of what is not the result."""
        return self.folder / _WORK

    def finish(self, piece: str, facts: Mapping[str, Any]) -> None:
        """A piece is done."""
        self.done[piece] = dict(facts)
        self.save()

    def facts(self, kind: str) -> list[dict[str, Any]]:
        """Of all pieces of a kind that are done."""
        return [facts for piece, facts in self.done.items() if piece.partition("-")[0] == kind]

    def save(self) -> None:
        """Write it; a crash leaves the one before."""
        document = {
            "version": _VERSION,
            "asked": self.asked,
            "spans": [[span.topic, span.partition, span.start, span.end] for span in self.spans],
            "topic_ids": self.topic_ids,
            "bounds": self.bounds,
            "done": self.done,
            "finished": self.finished,
        }
        partial = self.folder / f"{_MANIFEST}.partial"
        with partial.open("w") as file:
            json.dump(document, file, indent=1)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(self.folder / _MANIFEST)


@contextmanager
def opened(folder: Path, asked: Mapping[str, Any]) -> Iterator[Manifest]:
    """The export in a folder, which is made; a new one where there is none. Nobody else writes there meanwhile.

    Raises:
        ConfigError: the folder cannot be written to, has something else, or an export that was asked for otherwise, or
            another process is at it.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        others = [one.name for one in folder.iterdir() if one.name not in (_MANIFEST, _WORK, _LOCK)]
        found = _read(folder)
        lock = (folder / _LOCK).open("w")
    except OSError as error:
        raise ConfigError(
            f"The folder {folder} cannot be used: {error.strerror or error}. Name another by --out."
        ) from error
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise ConfigError(
                f"Another process is exporting into {folder}; wait for it, or name another folder."
            ) from None
        if found is None and others:
            raise ConfigError(f"The folder {folder} has other files ({others[0]}); an export needs one of its own.")
        if found is not None and found.asked != asked:
            raise ConfigError(_different(folder, found.asked, asked))
        manifest = found or Manifest(folder, dict(asked))
        manifest.work.mkdir(exist_ok=True)
        yield manifest


def finished(folder: Path) -> list[Path]:
    """The files of an export, in the order of their topics, partitions and offsets.

    Raises:
        ConfigError: there is none, or it is not finished.
    """
    found = _read(folder)
    if found is None or not found.finished:
        state = "no export" if found is None else "an export that is not finished; `streamml export` goes on with it"
        raise ConfigError(f"{folder} has {state}.")
    return sorted(folder.glob("topic=*/partition=*/*.parquet"))


def _read(folder: Path) -> Manifest | None:
    path = folder / _MANIFEST
    if not path.exists():
        return None
    try:
        told = json.loads(path.read_text())
        if told.pop("version") != _VERSION:
            raise ValueError
        spans = tuple(Span(*one) for one in told.pop("spans"))
        bounds = {
            topic: {number: (low, high) for number, (low, high) in places.items()}
            for topic, places in told.pop("bounds").items()
        }
        return Manifest(folder=folder, spans=spans, bounds=bounds, **told)
    except (ValueError, KeyError, TypeError, AttributeError):
        raise ConfigError(f"{path} is no manifest that this program can read; export into another folder.") from None


def _different(folder: Path, before: Mapping[str, Any], now: Mapping[str, Any]) -> str:
    names = [name for name in now if now[name] != before.get(name)]
    told = ", ".join(f"{name} {before.get(name)!r} and not {now[name]!r}" for name in names if name != "columns")
    what = f"with {told}" if told else "of a topology with other columns"
    return f"{folder} has an export {what}; give the same options to go on with it, or name another folder."
