"""Finds what a command names: a folder under ``topologies/``, ``path.py[:name]`` or ``module:name``."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Final, Generic, TypeVar

from streamml.errors import ConfigError, TopologyError, place_of
from streamml.topology.features import FeatureSet
from streamml.topology.steps import FeatureLookup
from streamml.topology.topology import Topology
from streamml.topology.typed import type_problems

_FOLDER: Final = "topologies"
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Located(Generic[T]):
    """Something declared in a Python file.

    Args:
        found: the object.
        folder: folder of the file.
    """

    found: T
    folder: Path

    @property
    def repository(self) -> Path:
        """Where the models of a topology are unless settings say otherwise."""
        return self.folder / "models"


def locate_topology(spelling: str) -> Located[Topology]:
    """The topology that ``spelling`` names.

    Raises:
        TopologyError: there is none, several, or its file does not load; says where it was looked for.
        ConfigError: it holds what is not of the declared types.
    """
    return _locate(spelling, Topology, "a Topology")


def locate_feature_set(spelling: str) -> Located[FeatureSet]:
    """The feature set that ``spelling`` (``path.py:name`` or ``module:name``) names.

    Raises:
        TopologyError, ConfigError: as `locate_topology`.
    """
    return _locate(spelling, FeatureSet, "a FeatureSet")


def locate_feature_sets(spelling: str) -> list[FeatureSet]:
    """The feature sets of the topology that ``spelling`` names, or the one feature set.

    Raises:
        TopologyError: it names neither.
        ConfigError: as `locate_topology`.
    """
    try:
        steps = locate_topology(spelling).found.steps
    except TopologyError:
        # It is most often a topology, so that is what the message is about.
        with suppress(TopologyError):
            return [locate_feature_set(spelling).found]
        raise
    return [one for step in steps if isinstance(step, FeatureLookup) for one in step.sets]


def is_place(spelling: str) -> bool:
    """Whether ``spelling`` can only be a folder, file or module, and not the name of a feature set."""
    return ":" in spelling or "/" in spelling or _file(spelling.partition(":")[0]) is not None


def _locate(spelling: str, kind: type[T], called: str) -> Located[T]:
    place, _, name = spelling.partition(":")
    module = _load(place, spelling)
    folder = Path(module.__file__ or ".").resolve().parent
    every = {key: value for key, value in vars(module).items() if isinstance(value, kind)}
    if name:
        found = getattr(module, name, None)
        if not isinstance(found, kind):
            kind_name = called.rsplit(maxsplit=1)[-1]
            there = ", ".join(sorted(every)) or f"no {kind_name}"
            if found is None:
                raise TopologyError(f"There is no {name!r} in {module.__file__}; it has {there}.")
            told = f"a {type(found).__name__} and not {called}"
            raise TopologyError(f"{name!r} in {module.__file__} is {told}; it has {there}.")
        return Located(_typed(found), folder)
    if len(every) != 1:
        names = ", ".join(sorted(every)) or "none"
        raise TopologyError(
            f"{module.__file__} has to define exactly one {called.rsplit(maxsplit=1)[-1]} or be asked for by name; it has {names}."
        )
    return Located(_typed(next(iter(every.values()))), folder)


def _typed(found: T) -> T:
    if wrong := list(type_problems(found)):
        raise ConfigError(wrong)
    return found


def _load(place: str, spelling: str) -> ModuleType:
    file = _file(place)
    # A topology's file imports its neighbours as its author does: from where commands are typed.
    if str(Path.cwd()) not in sys.path:
        sys.path.insert(0, str(Path.cwd()))
    try:
        if file is not None:
            return _load_file(file)
        if place.isidentifier() or all(part.isidentifier() for part in place.split(".")):
            return importlib.import_module(place)
    except ConfigError:
        raise
    except ModuleNotFoundError as error:
        if error.name is not None and f"{place}.".startswith(f"{error.name}."):
            raise TopologyError(_nowhere(spelling, place)) from error
        raise TopologyError(f"{spelling} does not load: {error}; install it, or correct the import.") from error
    except SyntaxError as error:
        # Its own place; the traceback ends in the import system.
        where = f"{error.filename}, line {error.lineno}: " if error.filename else ""
        raise TopologyError(f"{spelling} does not load: {where}{type(error).__name__}: {error.msg}.") from error
    except Exception as error:
        raise TopologyError(f"{spelling} does not load: {_where(error)}{type(error).__name__}: {error}") from error
    except SystemExit as error:
        raise TopologyError(
            f"{spelling} does not load: {_where(error)}it ends the process while it is read. A topology's file only "
            "declares; put what is to run by itself under `if __name__ == '__main__':`."
        ) from error
    raise TopologyError(_nowhere(spelling, place))


def _nowhere(spelling: str, place: str) -> str:
    folders = [place] if Path(place).parts[:1] == (_FOLDER,) else [place, f"{_FOLDER}/{place}"]
    there = sorted(
        str(file.parent) for pattern in ("*", f"{_FOLDER}/*") for file in Path().glob(f"{pattern}/topology.py")
    )
    found = f"There is {', '.join(there)}." if there else "No folder here has a topology.py."
    return (
        f"There is no topology {spelling!r} in {Path.cwd()}: no folder {' or '.join(folders)} with a topology.py, no Python "
        f"file and no module of that name. {found} Write a folder, path.py[:name] or module:name."
    )


def _file(place: str) -> Path | None:
    for path in (Path(_FOLDER) / place / "topology.py", Path(place) / "topology.py", Path(place)):
        if path.suffix == ".py" and path.is_file():
            return path.resolve()
    if place.endswith(".py"):
        raise TopologyError(f"There is no file {place}; check the path, relative to {Path.cwd()}.")
    return None


def _load_file(file: Path) -> ModuleType:
    """Load a file; one inside packages under its dotted name, so that it and its neighbours are the same modules."""
    cwd = Path.cwd().resolve()
    if file.is_relative_to(cwd):
        parts = file.relative_to(cwd).with_suffix("").parts
        packages = all((cwd.joinpath(*parts[:depth]) / "__init__.py").is_file() for depth in range(1, len(parts)))
        if len(parts) > 1 and packages and all(part.isidentifier() for part in parts):
            return importlib.import_module(".".join(parts))
    spec = importlib.util.spec_from_file_location(f"streamml_topology_{abs(hash(file))}", file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    # Its neighbours, too: a single folder of files that is no package.
    sys.path.insert(0, str(file.parent))
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def _where(error: BaseException) -> str:
    place = place_of(error)
    return f"{place}: " if place else ""
