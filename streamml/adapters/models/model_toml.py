"""``model.toml``: what one version of a model is, written beside its file.

::

    name = "flight-delay"
    version = "1"
    sha256 = "…"                       # of the model's file

    [files]                            # of every other file that belongs to it; left out where there is none
    "weights.bin" = "…"

    [signature.inputs.x]               # in the model file's order
    dtype = "float32"                  # a numpy type name, or "text"
    shape = ["rows", 22]               # as `Tensor` prints it; "any" is any length

    [signature.outputs.probabilities]
    dtype = "float32"
    shape = ["rows", 2]

    [metrics]
    auc = 0.71

Further tables, such as how the model was made, are the writer's own.
"""

from __future__ import annotations

import hashlib
import json
import re
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final

import numpy as np

from streamml.adapters.models.onnx_file import external_files
from streamml.adapters.models.pt2_archive import without_code
from streamml.adapters.models.tensors import NUMPY
from streamml.ports.model import Signature, Tensor

Table = Mapping[str, object]

ONNX: Final = "model.onnx"
PT2: Final = "model.pt2"
SAFETENSORS: Final = "model.safetensors"
SAMPLE: Final = "sample.npz"
FILES: Final = {ONNX: "an ONNX model", PT2: "an archive of torch.export", SAFETENSORS: "a safetensors file"}
"""What a version of a model may be, by the name of its file."""

_BARE_KEY: Final = re.compile(r"[A-Za-z0-9_-]+")


def read_toml(path: Path) -> tuple[Table | None, list[str]]:
    """The document at ``path``, or none and the problem where it cannot be read."""
    try:
        return tomllib.loads(path.read_text(encoding="utf-8")), []
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        return None, [f"{path} cannot be read as TOML ({error}); correct it, or write it again with write_toml()."]


def read_signature(path: Path, document: Table) -> tuple[Signature, list[str]]:
    """The signature in ``document``, as far as it is readable, and one sentence for each thing that is not."""
    problems: list[str] = []
    signature = document.get("signature")
    sides: list[dict[str, Tensor]] = []
    for side in ("inputs", "outputs"):
        tensors = signature.get(side) if isinstance(signature, dict) else None
        if not isinstance(tensors, dict) or not tensors:
            problems.append(f"{path} declares no {side}; add [signature.{side}.<name>] with dtype and shape.")
            tensors = {}
        read = {name: _tensor(tensor) for name, tensor in tensors.items()}
        wrong = {name: what for name, what in read.items() if isinstance(what, str)}
        problems += [f"{path}: [signature.{side}.{name}] {what}." for name, what in wrong.items()]
        sides.append({name: tensor for name, tensor in read.items() if isinstance(tensor, Tensor)})
    return Signature(*sides), problems


def _tensor(declared: object) -> Tensor | str:
    """The tensor, or what is wrong with its declaration."""
    if not isinstance(declared, dict):
        return "is no table; give it dtype and shape"
    dtype, shape = declared.get("dtype"), declared.get("shape")
    if dtype not in NUMPY:
        return f"has the dtype {dtype!r}; write one of {', '.join(NUMPY)}"
    if not isinstance(shape, list) or shape[:1] != ["rows"] or not all(map(_is_size, shape[1:])):
        return f'has the shape {shape!r}; write it as ["rows", 22], with "any" for a dimension of any length'
    return Tensor(str(dtype), tuple(None if size == "any" else int(size) for size in shape[1:]))


def _is_size(size: object) -> bool:
    return size == "any" or (type(size) is int and size >= 0)


def sha256_of(path: Path) -> str:
    """The sha256 of a file's content, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_toml(
    folder: Path,
    signature: Signature,
    metrics: Table | None = None,
    made: Table | None = None,
) -> Path:
    """Write ``model.toml`` beside the model's file in ``folder`` and return its path.

    Args:
        folder: ``<root>/<name>/<version>``; name and version are taken from it.
        signature: of the file, as `streamml.adapters.models.onnx_session.signature_of` reads it.
        metrics: what the model reached, by name.
        made: how the model was made: data, code, seeds; becomes the table ``[made]``.

    Raises:
        ValueError: the file is none that can be a model.
        TypeError: a value is neither text, number, truth value nor a list of them.
    """
    model = next((folder / name for name in FILES if (folder / name).is_file()), folder / ONNX)
    others = sorted(files_of(model))
    tables: dict[str, Table] = {
        "": {"name": folder.resolve().parent.name, "version": folder.resolve().name, "sha256": sha256_of(model)},
        "files": {name: sha256_of(folder / name) for name in others},
        **{_key("signature", "inputs", name): _described(tensor) for name, tensor in signature.inputs.items()},
        **{_key("signature", "outputs", name): _described(tensor) for name, tensor in signature.outputs.items()},
        "metrics": metrics or {},
        "made": made or {},
    }
    path = folder / "model.toml"
    lines = [line for title, table in tables.items() for line in _lines(title, table)]
    path.write_text("\n".join(lines), encoding="utf-8")
    return path


def files_of(model: Path) -> frozenset[str]:
    """Names of the other files that belong to a model's.

    Raises:
        ValueError: the file is not what its name says.
        OSError: it cannot be read.
    """
    if model.name == ONNX:
        return external_files(model)
    sample = model.with_name(SAMPLE)
    if model.name == PT2:
        without_code(model)
    return frozenset({SAMPLE} if sample.is_file() else ())


def _described(tensor: Tensor) -> Table:
    return {"dtype": tensor.dtype, "shape": ["rows", *("any" if size is None else size for size in tensor.shape)]}


def _lines(title: str, table: Table) -> Iterator[str]:
    if title and table:
        yield f"[{title}]"
    for name, value in table.items():
        yield f"{_key(name)} = {_literal(value)}"
    if table:
        yield ""


def _key(*parts: str) -> str:
    return ".".join(part if _BARE_KEY.fullmatch(part) else _literal(part) for part in parts)


def _literal(value: object) -> str:
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(_literal, value))}]"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str):
        # A JSON string is a TOML string, except that TOML wants DEL escaped.
        return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
    if isinstance(value, int | float):
        return repr(value)
    raise TypeError(f"model.toml cannot hold a {type(value).__name__}; write it as text.")
