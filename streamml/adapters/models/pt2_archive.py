"""Reads an archive of ``torch.export`` before PyTorch does, and hands over what in it is data only (promise L5).

``torch.export.load`` runs code of the file in several ways: weights and constants that their configuration marks as pickled,
pickled objects, sample inputs (unpickled without limits if the limited way fails), compiled libraries, operators named by any
path below ``torch``, some of which write files, conditions on inputs, symbolic shapes, which SymPy evaluates as Python, and
the structure of inputs and outputs, which may name modules to import. Here every entry has to be one of the few that are
tensors or descriptions, every operator one of a known library that only computes, every expression arithmetic, every
structure one of tuples, lists and dicts; the sample inputs, a pickle that every archive has and nothing needs, and the
conditions are emptied.

The layout is that of ``torch.export.pt2_archive`` (archive version 0, PyTorch 2.9 and later).
"""

from __future__ import annotations

import io
import json
import re
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

_SAMPLES: Final = "data/sample_inputs/model.pt"
_MODEL: Final = "models/model.json"
_DATA: Final = re.compile(
    r"data/weights/(weight_\d+|model_weights_config\.json)|data/constants/(tensor_\d+|model_constants_config\.json)"
    r"|archive_format|archive_version|byteorder|version|\.data/(version|serialization_id)|\.format_version"
)
_OPERATOR: Final = re.compile(
    r"torch\.ops\.(aten(?!\.(save|from_file|warn)\b)|prims|quantized_decomposed|torchvision)(\.(?!__)\w+){1,2}"
    r"|torch\.ops\.prim\.(device|dtype|layout)(\.(?!__)\w+)?|torch\.sym_\w+|math\.[a-z]\w*"
    r"|_operator\.(add|sub|mul|truediv|floordiv|mod|pow|neg|pos|eq|ne|lt|le|gt|ge|and_|or_|not_|getitem)"
)
_EXPRESSION: Final = re.compile(
    r"(Symbol\('[su]\d+'(, (positive|integer|nonnegative)=True)*\)|[su]\d+|[A-Z][A-Za-z]*|int_oo|oo|\d+(\.\d+)?|[-+*/%(), <>=&|~])*"
)
_SYMBOL: Final = re.compile(r"[su]\d+")
_STRUCTURES: Final = (
    *("builtins.tuple", "builtins.list", "builtins.dict", "collections.OrderedDict"),
    *("torch.fx.immutable_collections.immutable_list", "torch.fx.immutable_collections.immutable_dict"),
)
_MOST_NESTED: Final = 200


def without_code(path: Path) -> io.BytesIO:
    """The archive with emptied sample inputs, to load instead of the file.

    Raises:
        ValueError: it is no such archive, or something in it may run; the message says what.
        OSError: the file cannot be read.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            return _cleaned(archive)
    except (zipfile.BadZipFile, UnicodeDecodeError, json.JSONDecodeError, RecursionError, NotImplementedError) as error:
        raise ValueError(f"it is no archive of torch.export ({error})") from error


def _cleaned(archive: zipfile.ZipFile) -> io.BytesIO:
    names = archive.namelist()
    roots = {name.partition("/")[0] for name in names}
    inner = [name.partition("/")[2] for name in names]
    if len(roots) != 1 or len(set(names)) != len(names) or _MODEL not in inner:
        raise ValueError("it is no archive of torch.export of PyTorch 2.9 or later, with one model named 'model'")
    for name in inner:
        if name not in (_SAMPLES, _MODEL) and not _DATA.fullmatch(name):
            raise ValueError(
                f"it holds {name!r}, which is neither tensor nor description, and may run when it is loaded"
            )
    cleaned = io.BytesIO()
    with zipfile.ZipFile(cleaned, "w", zipfile.ZIP_STORED) as written:
        for name, short in zip(names, inner, strict=True):
            content = b"" if short == _SAMPLES else archive.read(name)
            written.writestr(name, _described(short, json.loads(content)) if short.endswith(".json") else content)
    cleaned.seek(0)
    return cleaned


def _described(name: str, document: Any) -> str:
    """A description that is data only, without the conditions that PyTorch would run as Python."""
    if name == _MODEL and isinstance(document, dict):
        document["guards_code"] = []
    _check_json(name, document)
    return json.dumps(document)


def _check_json(name: str, document: object) -> None:
    for key, value in _entries(document, 0):
        if key == "use_pickle" and value is not False:
            raise ValueError(f"{name} has a pickled tensor; save plain tensors, without subclasses")
        if key in ("target", "as_operator") and isinstance(value, str) and not _known(name, key, value):
            raise ValueError(f"{name} calls {value!r}, which is no operator of ATen")
        if key == "expr_str" and not (isinstance(value, str) and _EXPRESSION.fullmatch(value)):
            raise ValueError(f"{name} has the expression {value!r}, which is not arithmetic")
        if key == "range_constraints" and not (isinstance(value, dict) and all(map(_SYMBOL.fullmatch, value))):
            raise ValueError(f"{name} has ranges of something else than sizes")
        if key in ("in_spec", "out_spec") and not (isinstance(value, str) and _plain(json.loads(value))):
            raise ValueError(f"{name} has inputs or outputs in something else than tuples, lists and dicts")
        if key == "path_name" and not (isinstance(value, str) and re.fullmatch(r"(weight|tensor)_\d+", value)):
            raise ValueError(f"{name} has a tensor in {value!r}; save plain tensors")


def _known(name: str, key: str, value: str) -> bool:
    return name != _MODEL or bool(_OPERATOR.fullmatch(value))


def _plain(spec: object) -> bool:
    """Whether the structure, as ``torch.utils._pytree`` writes it, holds nothing that is imported to read it."""
    for key, value in _entries(spec, 0):
        if key == "type" and value is not None and value not in _STRUCTURES:
            return False
        if key == "context" and not _is_context(value):
            return False
    return True


def _is_context(context: object) -> bool:
    """Whether it is the keys of a dict, or nothing, in JSON."""
    if context is None:
        return True
    keys = json.loads(context) if isinstance(context, str) else context
    return keys is None or (isinstance(keys, list) and all(isinstance(key, str | int) for key in keys))


def _entries(document: Any, depth: int) -> Iterator[tuple[str, object]]:
    """Every key with its value, at any depth."""
    if depth > _MOST_NESTED:
        raise ValueError("its description is nested too deeply")
    if isinstance(document, dict):
        for key, value in document.items():
            yield key, value
            yield from _entries(value, depth + 1)
    elif isinstance(document, list):
        for value in document:
            yield from _entries(value, depth + 1)
