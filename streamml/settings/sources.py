"""Settings from flags, environment, ``streamml.toml`` and defaults, in that order; all problems at once."""

from __future__ import annotations

import os
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Final

from pydantic import BaseModel, ValidationError

from streamml.errors import SettingsError
from streamml.settings.settings import BROKERS_TO_SAY, REFUSED, Settings, masked

PREFIX: Final = "STREAMML_"
FILE: Final = "streamml.toml"
_OPEN: Final = ("kafka_consumer", "kafka_producer", "kafka")
_NOT_SETTINGS: Final = ("STREAMML_CACHE_DIR", "STREAMML_STATE_DIR")

Path_ = tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Effective:
    """The settings that hold, and where each that is no default came from.

    Args:
        settings: validated.
        origins: dotted name to ``flag``, the environment variable, or the file.
    """

    settings: Settings
    origins: Mapping[str, str]


def read_settings(
    flags: Mapping[str, Any] | None = None,
    *,
    environment: Mapping[str, str] | None = None,
    file: Path | None = None,
) -> Effective:
    """Settings that hold.

    Args:
        flags: dotted name to value, ``None`` values are ignored.
        environment: default: this process's.
        file: default: ``streamml.toml`` in the current folder, if it is there.

    Raises:
        SettingsError: with every unknown name, wrong value and refused property.
    """
    problems: list[str] = []
    values: dict[Path_, tuple[Any, str]] = {}
    for path, value, origin in _from_file(file, problems):
        values[path] = (value, origin)
    for path, value, origin in _from_environment(os.environ if environment is None else environment, problems):
        values[path] = (value, origin)
    for name, value in (flags or {}).items():
        if value is not None:
            values[tuple(name.split("."))] = (value, "flag")
    problems += _refusals(values)
    settings = _validated(values, problems)
    if problems or settings is None:
        raise SettingsError(problems)
    return Effective(settings, {".".join(path): origin for path, (_, origin) in values.items()})


def _from_file(file: Path | None, problems: list[str]) -> Iterator[tuple[Path_, Any, str]]:
    path = file or Path(FILE)
    if file is None and not path.exists():
        return
    try:
        document = tomllib.loads(path.read_text())
    except OSError as error:
        problems.append(f"The settings file {path} cannot be read ({error.strerror}); name another by --config.")
        return
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        problems.append(f"The settings file {path} is not TOML: {error}.")
        return
    for where, value in _leaves(document):
        yield where, value, str(path)


def _leaves(document: Mapping[str, Any]) -> Iterator[tuple[Path_, Any]]:
    for name, value in document.items():
        if not isinstance(value, dict):
            yield (name,), value
        elif name == "kafka":
            yield from _kafka_leaves(value)
        else:
            for inner, leaf in value.items():
                if isinstance(leaf, dict):
                    yield from (((name, inner, option), deep) for option, deep in leaf.items())
                else:
                    yield (name, inner), leaf


def _kafka_leaves(table: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[Path_, Any]]:
    """TOML reads ``security.protocol = "SSL"`` as nested tables; librdkafka wants the dotted name."""
    for name, value in table.items():
        if not prefix and name in ("consumer", "producer") and isinstance(value, dict):
            yield from (((f"kafka_{name}", leaf), deep) for (_, leaf), deep in _kafka_leaves(value))
        elif isinstance(value, dict):
            yield from _kafka_leaves(value, f"{prefix}{name}.")
        else:
            yield ("kafka", f"{prefix}{name}"), value


def _from_environment(environment: Mapping[str, str], problems: list[str]) -> Iterator[tuple[Path_, Any, str]]:
    names = {"_".join(path).upper(): path for path in setting_names()}
    for variable in sorted(environment):
        if not variable.startswith(PREFIX) or variable in _NOT_SETTINGS:
            continue
        rest = variable.removeprefix(PREFIX)
        section = next((one for one in _OPEN if rest.startswith(f"{one.upper()}_")), None)
        if rest in names:
            text = environment[variable]
            yield names[rest], text.split(",") if names[rest] == ("model", "providers") else text, variable
        elif section is not None:
            yield (section, rest[len(section) + 1 :].lower().replace("_", ".")), environment[variable], variable
        else:
            near = _near(variable, [f"{PREFIX}{name}" for name in names])
            problems.append(
                f"The environment variable {variable} is no setting{near}; see `streamml config show`, or unset it."
            )


def setting_names(model: type[BaseModel] = Settings, prefix: Path_ = ()) -> list[Path_]:
    """Every setting's path, but for the open tables of librdkafka and redis-py."""
    found: list[Path_] = []
    for name, field in model.model_fields.items():
        kind = field.annotation
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            found += setting_names(kind, (*prefix, name))
        elif name not in (*_OPEN, "options"):
            found.append((*prefix, name))
    return found


def _refusals(values: Mapping[Path_, tuple[Any, str]]) -> Iterator[str]:
    protocol, _ = values.get(("worker", "group_protocol"), ("classic", ""))
    for path, (_, origin) in values.items():
        if path[0] in _OPEN and path[-1] == "bootstrap.servers":
            yield f"{origin} sets the Kafka property bootstrap.servers; use the setting `brokers` instead."
        elif path[0] in _OPEN and path[-1] in REFUSED:
            yield f"{origin} sets the Kafka property {path[-1]}, which is refused: {REFUSED[path[-1]]}. Take it out."
        elif path[0] in _OPEN and path[-1] in BROKERS_TO_SAY and protocol == "consumer":
            yield (
                f'{origin} sets the Kafka property {path[-1]}, which is the broker\'s with group_protocol = "consumer"; set '
                f"{BROKERS_TO_SAY[path[-1]]} of the group there, and take it out."
            )


def _validated(values: Mapping[Path_, tuple[Any, str]], problems: list[str]) -> Settings | None:
    document: dict[str, Any] = {}
    for path, (value, origin) in values.items():
        table = document
        for name in path[:-1]:
            inner = table.setdefault(name, {})
            if not isinstance(inner, dict):
                problems.append(
                    f"{origin} sets {'.'.join(path)}, but {name} is a value and no table; correct one of them."
                )
                inner = {}
            table = inner
        table[path[-1]] = value
    try:
        return Settings.model_validate(document)
    except ValidationError as error:
        problems += [_sentence(one, values) for one in error.errors(include_url=False)]
        return None


def _sentence(error: Any, values: Mapping[Path_, tuple[Any, str]]) -> str:
    path = tuple(str(part) for part in error["loc"])
    name = ".".join(path)
    origin = _origin(path, values)
    if error["type"] == "extra_forbidden":
        near = _near(name, [*(".".join(one) for one in setting_names()), *Settings.model_fields])
        return f"{origin} sets {name}, which is no setting{near}; see `streamml config show` for those that are."
    # pydantic's own message names the bound; the value may be a secret, so it stays out.
    return f"{origin} sets {name} wrongly: {error['msg']}."


def _origin(path: Path_, values: Mapping[Path_, tuple[Any, str]]) -> str:
    """Who set what an error is about: the setting itself, something inside of it, or the table that it is in."""
    for known, (_, origin) in values.items():
        if known[: len(path)] == path[: len(known)]:
            return f"--{'-'.join(known).replace('_', '-')}" if origin == "flag" else origin
    return "A default"


def _near(name: str, names: list[str]) -> str:
    """The name that was probably meant, as a question."""
    found = get_close_matches(name, names, 1)
    return f" (did you mean {found[0]}?)" if found else ""


@dataclass(frozen=True, slots=True)
class Shown:
    """One setting as people read it; secrets masked."""

    name: str
    value: Any
    origin: str
    help: str


def described(effective: Effective) -> list[Shown]:
    """Every setting that holds, and every open property that is set."""
    found: list[Shown] = []
    for name, value, help in _values(effective.settings):
        origin = next((o for known, o in effective.origins.items() if known == name), "default")
        found.append(Shown(name, masked(name, value), origin, help))
    return found


def _values(section: BaseModel, prefix: str = "") -> Iterator[tuple[str, Any, str]]:
    for name, field in type(section).model_fields.items():
        value = getattr(section, name)
        if isinstance(value, BaseModel):
            yield from _values(value, f"{prefix}{name}.")
        elif isinstance(value, dict):
            yield from ((f"{prefix}{name}.{key}", inner, field.description or "") for key, inner in value.items())
        else:
            yield f"{prefix}{name}", value, field.description or ""
