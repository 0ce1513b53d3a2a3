"""``streamml model``."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import click

from streamml.cli.options import json_option, print_json

_PATH = click.Path(path_type=Path, dir_okay=False)


@click.group("model")
def command() -> None:
    """Bring trained models into the model repository."""


@command.command("import")
@click.argument("file", type=_PATH)
@click.option(
    "--check", "sample", type=_PATH, required=True, help="Parquet file of features to compare the two models on."
)
@click.option("--name", required=True, help="Of the model, as topologies name it.")
@click.option("--version", default=None, help="Default: one above the highest number.")
@click.option(
    "--repository", type=click.Path(path_type=Path, file_okay=False), default=Path("models"), show_default=True
)
@click.option(
    "--tolerance",
    type=click.FloatRange(min=0),
    default=1e-5,
    show_default=True,
    help="A row that differs by more has changed.",
)
@click.option("--i-trust-this-file", "trusted", is_flag=True, help="Read a joblib file, which runs what is in it.")
@json_option
def import_(
    file: Path,
    sample: Path,
    name: str,
    version: str | None,
    repository: Path,
    tolerance: float,
    trusted: bool,
    as_json: bool,
) -> None:
    """Convert FILE, a LightGBM model (.txt) or a scikit-learn model (.joblib), to ONNX, and show how far the two differ."""
    from streamml.ops.import_model import import_model

    made = import_model(file, sample, name, repository, version=version, tolerance=tolerance, trusted=trusted)
    if as_json:
        print_json({**asdict(made), "folder": str(made.folder), "rounded": list(made.rounded)})
    else:
        click.echo(f"Wrote {made.folder}, from a {made.kind}.")
        for output, one in made.differences.items():
            click.echo(f"{output}: differs by at most {one.largest:.3g}, in row {one.worst} of {made.sample_rows}.")
    for output, one in made.differences.items():
        if one.rows:
            click.echo(
                f"Warning: {output} changes by more than {tolerance:g} in {one.rows} of {made.sample_rows} rows.",
                err=True,
            )
    if made.rounded and any(one.rows for one in made.differences.values()):
        columns = ", ".join(made.rounded)
        click.echo(
            f"Warning: the ONNX model takes float32, which does not hold all values of {columns}; near a threshold of a tree that "
            "is another leaf. Train on float32, or round the features.",
            err=True,
        )
