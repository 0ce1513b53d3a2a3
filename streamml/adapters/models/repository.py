"""Finds a version of a model in a model repository, and vouches for its files.

A repository is a folder of ``<name>/<version>/model.onnx``, ``model.pt2`` or ``model.safetensors`` beside ``model.toml``, as Triton and TF Serving lay theirs
out; `streamml.adapters.models.model_toml` has what the latter holds. Everything is checked without opening the model.
"""

from __future__ import annotations

import os.path
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from streamml.adapters.models.model_toml import FILES, ONNX, Table, files_of, read_signature, read_toml, sha256_of
from streamml.errors import ConfigError
from streamml.ports.model import Signature

# Names go into paths, metric labels and the prediction header, which is cut at ";" and "@".
_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
_WRITTEN: Final = (
    "Write it: streamml.adapters.models.model_toml.write_toml(folder, signature), the signature as "
    "streamml.adapters.models.onnx_session.signature_of(file) reads it."
)
_NUMERIC: Final = re.compile(r"[0-9]{1,18}")


@dataclass(frozen=True, slots=True)
class ModelFiles:
    """One version of a model whose files are what their ``model.toml`` says.

    Args:
        folder: ``<root>/<name>/<version>``.
        model: the model's file in it.
        signature: as ``model.toml`` declares it; held against the file when the model is loaded.
        document: everything in ``model.toml``.
    """

    name: str
    version: str
    folder: Path
    model: Path
    sha256: str
    signature: Signature
    document: Table

    @property
    def metrics(self) -> Mapping[str, object]:
        """What the model reached when it was made, by name."""
        metrics = self.document.get("metrics")
        return metrics if isinstance(metrics, dict) else {}


def versions(root: Path, name: str) -> tuple[str, ...]:
    """Versions of a model in the repository, highest number first; those that are no number come last."""
    folders = [folder.name for folder in _folders(root / name)] if _NAME.fullmatch(name) else []
    return tuple(sorted(folders, key=_order, reverse=True))


def find(root: Path, name: str, version: str | None = None, *, file: str = ONNX) -> ModelFiles:
    """The files of a version of a model; ``None`` takes the highest number.

    Args:
        file: the model's, one of those that `FILES` has.

    Raises:
        ConfigError: with every problem there is; each says what to do.
    """
    folder = _folder(root, name, version)
    model, described = folder / file, folder / "model.toml"
    problems = list(_absences(model, described))
    document, unreadable = read_toml(described) if described.is_file() else (None, [])
    problems += unreadable
    signature, unclear = read_signature(described, document or {})
    if document is not None:
        problems += [*_misnomers(described, document, folder), *unclear]
    if model.is_file():
        problems += _corruptions(model, document)
    if problems or document is None:
        raise ConfigError(problems)
    return ModelFiles(name, folder.name, folder, model, str(document["sha256"]), signature, document)


def check_names(name: str, version: str | None) -> None:
    """Return if these may name a model and a version of it.

    Raises:
        ConfigError: with each that may not.
    """
    wrong = [text for text in (name, version) if text is not None and not _NAME.fullmatch(text)]
    if wrong:
        rule = "use letters, digits, '.', '_' and '-', beginning with a letter or digit"
        raise ConfigError([f"{text!r} cannot name a model or a version; {rule}." for text in wrong])


def signature_problems(files: ModelFiles, actual: Signature) -> Iterator[str]:
    """One sentence for each difference between ``model.toml`` and ``actual``, the signature in the model's file."""
    path = files.folder / "model.toml"
    for side, said, found in (
        ("inputs", files.signature.inputs, actual.inputs),
        ("outputs", files.signature.outputs, actual.outputs),
    ):
        if list(said) != list(found):
            yield (
                f"{path} declares the {side} {', '.join(said)}, but {files.model.name} has {', '.join(found)}; "
                "declare them all, in the file's order."
            )
        for name in said:
            if name in found and said[name] != found[name]:
                yield (
                    f"{path} declares [signature.{side}.{name}] as {said[name]}, but in {files.model.name} it is "
                    f"{found[name]}; correct the declaration, or put the right model there."
                )


def _folder(root: Path, name: str, version: str | None) -> Path:
    check_names(name, version)
    if not root.is_dir():
        raise ConfigError(
            f"There is no folder {root}; the model {name!r} is looked for at {root / name / (version or '1') / 'model.onnx'}. "
            "Put it there, or name another folder by the setting model.repository."
        )
    known = versions(root, name)
    if not known:
        models = ", ".join(sorted(folder.name for folder in _folders(root))) or "no model at all"
        raise ConfigError(f"There is no version of a model in {root / name}; the repository has {models}.")
    if version is None:
        version = known[0]
        if not _NUMERIC.fullmatch(version):
            raise ConfigError(f"No version in {root / name} is a number ({', '.join(known)}); say which one to take.")
    if version not in known:
        raise ConfigError(f"There is no version {version} in {root / name}; it has {', '.join(known)}.")
    return root / name / version


def _folders(path: Path) -> list[Path]:
    if not path.is_dir():
        return []
    return [folder for folder in path.iterdir() if folder.is_dir() and _NAME.fullmatch(folder.name)]


def _order(version: str) -> tuple[int, str]:
    return (int(version) if _NUMERIC.fullmatch(version) else -1, version)


def _absences(*paths: Path) -> Iterator[str]:
    for path in paths:
        if not path.is_file():
            found = ", ".join(sorted(entry.name for entry in path.parent.iterdir())) or "nothing"
            remedy = _WRITTEN if path.name == "model.toml" else "Put it there, or take another version."
            yield f"There is no {path}; its folder holds {found}. {remedy}"


def _misnomers(path: Path, document: Table, folder: Path) -> Iterator[str]:
    for field, expected in (("name", folder.parent.name), ("version", folder.name)):
        # TOML writers put a version as a number as often as a text.
        if str(document.get(field)) != expected:
            said = f"says {field} = {document[field]!r}" if field in document else f"has no {field}"
            yield f"{path} {said}, but its folder says {expected!r}; let them agree."


def _corruptions(model: Path, document: Table | None) -> Iterator[str]:
    """What is wrong with the content of the model's file and of those that it pulls in."""
    external: frozenset[str] = frozenset()
    try:
        external = files_of(model)
    except ValueError as error:
        yield f"{model} is not {FILES[model.name]}: {error}. Export it anew; nothing else is loaded, above all no pickle."
    except OSError as error:
        yield f"{model} cannot be read ({error}); let the worker's user read it."
        return
    if document is None:
        return
    yield from _checksum_problems(model.parent, model.name, document.get("sha256"), "sha256")
    files = document.get("files")
    sums: Table = files if isinstance(files, dict) else {}
    for location in sorted(external | sums.keys()):
        if _inside(location, model.parent):
            yield from _checksum_problems(model.parent, location, sums.get(location), f'[files] "{location}"')
        else:
            yield f"{model} needs {location!r}, which is no file inside its folder; save the model's data beside it."


def _checksum_problems(folder: Path, file: str, expected: object, field: str) -> Iterator[str]:
    if not isinstance(expected, str):
        yield f"{folder / 'model.toml'} has no {field}; write the sha256 of {file} there, or use write_toml()."
        return
    try:
        actual = sha256_of(folder / file)
    except OSError as error:
        yield f"{folder / file} cannot be read ({error}); let the worker's user read it."
        return
    if actual != expected.lower():
        yield (
            f"{folder / file} has the sha256 {actual}, but model.toml says {expected}: the file was changed, or copied "
            "in part. Copy it again; after a change on purpose make a new version."
        )


def _inside(location: str, folder: Path) -> bool:
    if os.path.isabs(location) or "\0" in location:
        return False
    file, inside = os.path.realpath(folder / location), os.path.realpath(folder)
    return os.path.isfile(file) and os.path.commonpath([file, inside]) == inside
