"""``streamml model import``: a trained model into the model repository, held against itself on a sample."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from streamml.adapters.models.conversion import Trained, read_trained
from streamml.adapters.models.model_toml import ONNX, sha256_of, write_toml
from streamml.adapters.models.onnx import OnnxModel
from streamml.adapters.models.onnx_session import signature_of
from streamml.adapters.models.repository import check_names, find, versions
from streamml.batch.column import Array
from streamml.errors import ConfigError


@dataclass(frozen=True, slots=True)
class Difference:
    """How far an output of the ONNX model is from the trained model's.

    Args:
        largest: absolute, over all rows.
        rows: how many rows differ by more than the tolerance.
        worst: index of the row with the largest difference.
    """

    largest: float
    rows: int
    worst: int


@dataclass(frozen=True, slots=True)
class Imported:
    """What was written, and how true it is.

    Args:
        folder: of the new version.
        kind: class of the trained model.
        sample_rows: rows that were compared.
        rounded: sample columns with values that float32, which ONNX models take, does not hold exactly.
        differences: by output.
    """

    folder: Path
    kind: str
    sample_rows: int
    rounded: tuple[str, ...]
    differences: Mapping[str, Difference]


def import_model(
    file: Path, sample: Path, name: str, repository: Path, *, version: str | None, tolerance: float, trusted: bool
) -> Imported:
    """Convert a trained model to ONNX as a new version in the repository.

    Args:
        sample: Parquet file with the model's features as columns: by their names where the model knows them, else in its order.
        version: of the new folder; ``None``: one above the highest number.
        tolerance: absolute difference above which a row counts as changed.
        trusted: see `read_trained`.

    Raises:
        ConfigError: with what is wrong; nothing is left behind.
    """
    check_names(name, version)
    trained = read_trained(file, trusted=trusted)
    names, x = _read_sample(sample, trained)
    folder = repository / name / (version or _next_version(repository, name))
    if folder.exists():
        raise ConfigError(f"There is already a {folder}; take another --version.")
    content = trained.to_onnx()
    folder.mkdir(parents=True)
    try:
        (folder / ONNX).write_bytes(content)
        differences = _differences(trained, folder / ONNX, x, tolerance)
        figures = {f"largest_difference_{output}": one.largest for output, one in differences.items()}
        made = {
            "from": file.name,
            "from_sha256": sha256_of(file),
            "kind": trained.kind,
            "sample_rows": len(x),
            "features": names,
        }
        write_toml(folder, signature_of(folder / ONNX), figures, made)
        find(repository, name, folder.name)
    except BaseException:
        shutil.rmtree(folder)
        with suppress(OSError):
            # The model's own folder goes, too, where no other version is in it.
            folder.parent.rmdir()
        raise
    inexact = (x.astype(np.float32) != x) & ~np.isnan(x)
    rounded = tuple(one for one, any_inexact in zip(names, inexact.any(axis=0), strict=True) if any_inexact)
    return Imported(folder, trained.kind, len(x), rounded, differences)


def _next_version(repository: Path, name: str) -> str:
    numbers = [int(one) for one in versions(repository, name) if one.isdecimal()]
    return str(max(numbers, default=0) + 1)


def _read_sample(path: Path, trained: Trained) -> tuple[list[str], Array]:
    """Names and values, float64 ``[n, width]``, of the model's features."""
    try:
        from pyarrow import ArrowException, parquet
    except ImportError:
        raise ConfigError("Parquet files need pyarrow: pip install streamml[parquet].") from None
    try:
        table: Any = parquet.read_table(path)
    except (OSError, ArrowException) as error:
        raise ConfigError(f"{path} cannot be read as Parquet ({error}).") from error
    known = bool(trained.names) and set(trained.names) <= set(table.column_names)
    names = list(trained.names) if known else list(table.column_names)
    if len(names) != trained.width or not table.num_rows:
        wanted = f", namely {', '.join(trained.names)}" if trained.names else ""
        raise ConfigError(
            f"{path} has {table.num_rows} rows of {', '.join(table.column_names)}; the model takes {trained.width} features{wanted}."
        )
    try:
        columns = [np.asarray(table[name].to_numpy(), np.float64) for name in names]
    except (TypeError, ValueError) as error:
        raise ConfigError(f"{path} has a column that is no number ({error}); the model takes numbers only.") from error
    return names, np.stack(columns, axis=1)


def _differences(trained: Trained, file: Path, x: Array, tolerance: float) -> dict[str, Difference]:
    expected = trained.outputs(x)
    signature = signature_of(file)
    model = OnnxModel.from_file(file, "imported", "0")
    try:
        found = model.run({next(iter(signature.inputs)): x.astype(np.float32)})
    finally:
        model.close()
    missing = [output for output in expected if output not in found]
    if missing:
        raise ConfigError(f"The converted model has no output {', '.join(missing)}; it has {', '.join(found)}.")
    return {
        output: _difference(values, found[output].reshape(values.shape), tolerance)
        for output, values in expected.items()
    }


def _difference(expected: Array, found: Array, tolerance: float) -> Difference:
    apart = np.abs(found.astype(np.float64) - expected).reshape(len(expected), -1).max(axis=1)
    # What is not a number on one side only is as far apart as can be.
    apart = np.where(np.isnan(apart), np.inf, apart)
    return Difference(float(apart.max()), int((apart > tolerance).sum()), int(apart.argmax()))
