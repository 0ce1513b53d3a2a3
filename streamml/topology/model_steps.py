"""The steps of a topology that run a model."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal

from streamml.batch.column import ColumnType, column_types
from streamml.ports.model import Signature, Tensor


@dataclass(frozen=True)
class Batching:
    """How rows are put together for a model.

    Args:
        max_batch_size: most rows in one batch.
        latency_budget: time from ``budget_from`` in which a prediction is wanted, as ``"50ms"``. Batches are as large as it
            and the measured cost of a batch allow; a later prediction is flagged ``late``. ``None``: no budget.
        budget_from: whether the budget counts from the record's timestamp or from the event's time.
        on_late: what happens to a row that cannot make it: ``"score"`` it in its turn; ``"last"``, score it when no other
            row waits, which needs ``Sink(order="none")``; or write a ``"dead_letter"`` with the error ``DeadlineExceeded``.
        ladder: the only numbers of rows that the model is to see, 1 and ``max_batch_size`` among them in any case; a batch
            is padded to the next, and what the added rows give never leaves. ``None``: powers of two where the model is
            compiled or captured for a shape (on a GPU, as settings say), and else any number.
        lengths: for inputs of any length, whose column holds an array per row: rows of similar length are run together, each
            padded with zeros to the next of these; a longer one becomes a dead letter. Empty: to the longest of its batch.
    """

    max_batch_size: int = 4096
    latency_budget: str | None = None
    budget_from: Literal["record", "event"] = "record"
    on_late: Literal["score", "last", "dead_letter"] = "score"
    ladder: tuple[int, ...] | None = None
    lengths: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Output:
    """Which of a model's outputs becomes a column.

    Args:
        tensor: the output's name in the model file.
        column: index into the second axis, for an output ``[n, k]`` of which one column is wanted; ``None``: all of it. An
            output ``[n, 1]`` is taken as ``[n]``.
    """

    tensor: str
    column: int | None = None


class _OfRepository:
    """What steps have in common whose model is a file, which says what it takes and gives."""

    inputs: Mapping[str, str]
    outputs: Mapping[str, Output]

    @property
    def feeds(self) -> Mapping[str, str]:
        """See `ModelStep`."""
        return self.inputs

    @property
    def picks(self) -> Mapping[str, Output]:
        """See `ModelStep`."""
        return self.outputs

    @property
    def declared(self) -> None:
        """See `ModelStep`."""
        return None


@dataclass(frozen=True, init=False)
class Onnx(_OfRepository):
    """Score rows with an ONNX model of the model repository.

    Args:
        name: folder in the repository, ``models/<name>/<version>/model.onnx``.
        version: pin a version; ``None`` takes the highest.
        inputs: model input name to column name, where they differ. Inputs that are not named here are fed by the column
            of the same name.
        outputs: column name to the model's output. A row whose value is not finite becomes a dead letter.
        batching: how rows are put together.
    """

    name: str
    version: str | None
    inputs: Mapping[str, str]
    outputs: Mapping[str, Output]
    batching: Batching

    def __init__(
        self,
        name: str,
        *,
        outputs: Mapping[str, str | Output],
        inputs: Mapping[str, str] | None = None,
        version: str | None = None,
        batching: Batching | None = None,
    ) -> None:
        object.__setattr__(self, "name", name)
        object.__setattr__(self, "version", version)
        object.__setattr__(self, "inputs", dict(inputs or {}))
        object.__setattr__(self, "outputs", {c: o if isinstance(o, Output) else Output(o) for c, o in outputs.items()})
        object.__setattr__(self, "batching", batching or Batching())


@dataclass(frozen=True, slots=True)
class Calls:
    """How a `Python` step's function is called: for what computes slowly, and for what is far away and costs money.

    Args:
        rows: most rows of one call; a larger batch becomes several calls. ``None``: a batch is one call.
        concurrency: calls at once: threads that call one function, which has to bear it, or processes of one function each.
        timeout: a call that takes longer, as ``"2s"``, is given up and its batch is tried again later. A process is ended
            then; a thread cannot be, and is left waiting as one of ``concurrency``, so give the function a timeout of
            its own, too. Where none has come back for ten minutes, the worker ends.
        rate: most calls a second, of one worker; calls wait for their turn.
        cost: what a row costs, in any unit.
        cost_cap: most that one worker spends in 24 hours from its first call, in that unit; then its batches wait, and with
            them the topic. A restart counts from nothing.
    """

    rows: int | None = None
    concurrency: int = 1
    timeout: str | None = None
    rate: float | None = None
    cost: float = 0.0
    cost_cap: float | None = None


ModelFunction = Callable[[dict[str, Any]], Mapping[str, Any]]
_TENSORS: Final = {"bool": "bool", "i4": "int32", "i8": "int64", "f4": "float32", "f8": "float64", "text": "text"}


@dataclass(frozen=True, init=False)
class Python:
    """Score rows with anything that Python can call: LightGBM, XGBoost, scikit-learn, a model behind an API.

    Args:
        factory: makes the model, once per worker (once per process with ``isolation="process"``): opens files, connects,
            and returns a function. That gets a dict of read-only numpy arrays ``[n, ...]`` and returns a dict of arrays
            of exactly the declared types with the same number of rows, in the same order; `failures` may be merged in. When
            it raises, its batch is bisected until the failing rows are found, so it may be called again with the
            same rows; after `MemoryError` with fewer. `streamml.errors.ModelBusy`, `ConnectionError` and `TimeoutError`
            mean that the whole batch is tried again later.
        inputs: names and types of the columns it gets; numbers, truth values and text without nulls.
        outputs: names and types of the columns it returns; a row whose value is not finite becomes a dead letter.
        version: what predictions say that made them; change it with whatever the factory loads.
        name: what predictions and metrics call it; the factory's own where it is ``None``.
        batching: how rows are put together.
        calls: how the function is called.
        isolation: ``"thread"``: in the worker, where a crash of native code ends the worker too; ``"process"``: in processes of
            its own, which load the factory from its file.
        warm_up: whether it is called with zeros and empty text before the worker joins; not wanted where calls cost money.
    """

    factory: Callable[[], ModelFunction]
    inputs: Mapping[str, ColumnType]
    outputs: Mapping[str, ColumnType]
    version: str
    name: str
    batching: Batching
    calls: Calls
    isolation: Literal["thread", "process"]
    warm_up: bool

    def __init__(
        self,
        factory: Callable[[], ModelFunction],
        *,
        inputs: Mapping[str, str | ColumnType],
        outputs: Mapping[str, str | ColumnType],
        version: str,
        name: str | None = None,
        batching: Batching | None = None,
        calls: Calls | None = None,
        isolation: Literal["thread", "process"] = "thread",
        warm_up: bool = True,
    ) -> None:
        object.__setattr__(self, "factory", factory)
        object.__setattr__(self, "inputs", column_types(inputs))
        object.__setattr__(self, "outputs", column_types(outputs))
        object.__setattr__(self, "version", version)
        object.__setattr__(self, "name", name or getattr(factory, "__name__", type(factory).__name__))
        object.__setattr__(self, "batching", batching or Batching())
        object.__setattr__(self, "calls", calls or Calls())
        object.__setattr__(self, "isolation", isolation)
        object.__setattr__(self, "warm_up", warm_up)

    @property
    def feeds(self) -> Mapping[str, str]:
        """See `ModelStep`."""
        return {name: name for name in self.inputs}

    @property
    def picks(self) -> Mapping[str, Output]:
        """See `ModelStep`."""
        return {name: Output(name) for name in self.outputs}

    @property
    def declared(self) -> Signature:
        """See `ModelStep`. A column that no model takes is left to `check` to refuse."""
        return Signature(_tensors(self.inputs), _tensors(self.outputs))


@dataclass(frozen=True, init=False)
class Torch(_OfRepository):
    """Score rows with a PyTorch model of the model repository, on the CPU or on a GPU, as settings say.

    Args:
        name: folder in the repository, ``models/<name>/<version>/model.pt2``, an archive of ``torch.export`` whose first
            dimension is dynamic; with ``factory`` ``model.safetensors``. Its inputs are positional, in the order of
            ``model.toml``, and so are its outputs.
        outputs: column name to the model's output. A row whose value is not finite becomes a dead letter.
        inputs: model input name to column name, where they differ.
        version: pin a version; ``None`` takes the highest.
        batching: how rows are put together.
        factory: makes the ``torch.nn.Module`` that the weights belong to.
        precision: what products are computed in (PyTorch's autocast). Other than ``"float32"`` it is checked before the
            worker joins: on the rows of ``sample.npz`` beside the model, arrays by input name, no output may differ from
            float32's by more than ``tolerance``.
        tolerance: largest absolute difference.
        compile: whether ``torch.compile`` runs over it; that takes its time before the worker joins.
    """

    name: str
    version: str | None
    inputs: Mapping[str, str]
    outputs: Mapping[str, Output]
    batching: Batching
    factory: Callable[[], object] | None
    precision: Literal["float32", "float16", "bfloat16"]
    tolerance: float
    compile: bool

    def __init__(
        self,
        name: str,
        *,
        outputs: Mapping[str, str | Output],
        inputs: Mapping[str, str] | None = None,
        version: str | None = None,
        batching: Batching | None = None,
        factory: Callable[[], object] | None = None,
        precision: Literal["float32", "float16", "bfloat16"] = "float32",
        tolerance: float = 0.01,
        compile: bool = False,
    ) -> None:
        object.__setattr__(self, "name", name)
        object.__setattr__(self, "version", version)
        object.__setattr__(self, "inputs", dict(inputs or {}))
        object.__setattr__(self, "outputs", {c: o if isinstance(o, Output) else Output(o) for c, o in outputs.items()})
        object.__setattr__(self, "batching", batching or Batching())
        object.__setattr__(self, "factory", factory)
        object.__setattr__(self, "precision", precision)
        object.__setattr__(self, "tolerance", tolerance)
        object.__setattr__(self, "compile", compile)


def _tensors(columns: Mapping[str, ColumnType]) -> dict[str, Tensor]:
    return {name: Tensor(_TENSORS.get(one.kind, one.kind), one.shape) for name, one in columns.items()}


ModelStep = Onnx | Python | Torch
"""Each has, beside its ``name``, ``version`` and ``batching``: ``feeds``, column by model input where the step names them;
``picks``, the model's output by column; ``declared``, the signature where the topology and not a file has it."""
