"""Trained scikit-learn and LightGBM models as ONNX: offline, never in a worker.

`read_trained` is the one place in this package that may unpickle (joblib files are pickles), and only what somebody vouches for.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np

from streamml.batch.column import Array
from streamml.errors import ConfigError

_TEXT: Final = ".txt"
_PICKLES: Final = (".joblib", ".pkl", ".pickle")
_OPSET: Final = 15


@dataclass(frozen=True, slots=True)
class Trained:
    """A model as it was trained.

    Args:
        model: a LightGBM booster or a scikit-learn estimator.
        names: of its features, in order; empty where it does not know them.
        width: number of its features.
    """

    model: Any
    names: tuple[str, ...]
    width: int

    @property
    def kind(self) -> str:
        """Name of its class."""
        return type(self.model).__name__

    def outputs(self, x: Array) -> dict[str, Array]:
        """What it answers for ``x``, float64 ``[n, width]``: ``probabilities`` ``[n, k]``, or ``variable`` ``[n, 1]``."""
        if self._booster:
            return _of_booster(self.model, x)
        if hasattr(self.model, "predict_proba"):
            return {"probabilities": np.asarray(self.model.predict_proba(x))}
        return {"variable": np.asarray(self.model.predict(x)).reshape(len(x), -1)}

    def to_onnx(self) -> bytes:
        """The model in ONNX, with one input ``x``, float32 ``[rows, width]``.

        Raises:
            ConfigError: the converter is not installed, or does not know the model.
        """
        try:
            converted = (
                _converted_booster(self.model, self.width) if self._booster else _converted(self.model, self.width)
            )
        except ImportError as error:
            raise ConfigError(f"A converter is missing ({error}): pip install streamml[train].") from error
        except Exception as error:
            raise ConfigError(
                f"The model, a {self.kind}, cannot be converted to ONNX ({type(error).__name__}: {error}); run it by sm.Python."
            ) from error
        content: bytes = converted.SerializeToString()
        return content

    @property
    def _booster(self) -> bool:
        return self.kind == "Booster"


def read_trained(path: Path, *, trusted: bool) -> Trained:
    """A LightGBM model in its text format, or a scikit-learn model in joblib's.

    Args:
        trusted: whether somebody vouches for the file; reading a pickle runs what is in it.

    Raises:
        ConfigError: the file is not trusted and has to be, or is no such model, or a library is missing.
    """
    if path.suffix not in (_TEXT, *_PICKLES):
        raise ConfigError(
            f"{path} is neither a LightGBM model (.txt) nor a joblib file ({', '.join(_PICKLES)}); save it as one."
        )
    if path.suffix in _PICKLES and not trusted:
        raise ConfigError(
            f"{path} is a pickle: reading it runs whatever program is in it, with your rights. If you made it, or trust who did, "
            "say so by --i-trust-this-file."
        )
    if not path.is_file():
        raise ConfigError(f"There is no file {path}.")
    try:
        return _booster(path) if path.suffix == _TEXT else _estimator(path)
    except ImportError as error:
        raise ConfigError(f"A library of the model is missing ({error}): pip install streamml[train].") from error
    except ConfigError:
        raise
    except Exception as error:
        raise ConfigError(f"{path} cannot be read ({type(error).__name__}: {error}); save the model again.") from error


def _booster(path: Path) -> Trained:
    import lightgbm

    booster = lightgbm.Booster(model_file=path)
    return Trained(booster, tuple(booster.feature_name()), booster.num_feature())


def _estimator(path: Path) -> Trained:
    import joblib

    model = joblib.load(path)
    width = getattr(model, "n_features_in_", None)
    if width is None or not hasattr(model, "predict"):
        raise ConfigError(f"{path} holds a {type(model).__name__}, which is no fitted scikit-learn model.")
    return Trained(model, tuple(map(str, getattr(model, "feature_names_in_", ()))), int(width))


def _of_booster(booster: Any, x: Array) -> dict[str, Array]:
    answer = np.asarray(booster.predict(x, num_threads=1))
    objective = booster.dump_model(num_iteration=1).get("objective", "")
    if objective.startswith(("binary", "cross_entropy")):
        return {"probabilities": np.stack([1 - answer, answer], axis=1)}
    return {"probabilities" if objective.startswith("multiclass") else "variable": answer.reshape(len(x), -1)}


def _converted_booster(booster: Any, width: int) -> Any:
    from onnxmltools import convert_lightgbm
    from onnxmltools.convert.common.data_types import FloatTensorType

    return convert_lightgbm(
        booster, initial_types=[("x", FloatTensorType([None, width]))], zipmap=False, target_opset=_OPSET
    )


def _converted(model: Any, width: int) -> Any:
    from skl2onnx import convert_sklearn
    from skl2onnx.common.data_types import FloatTensorType

    options = {id(model): {"zipmap": False}} if hasattr(model, "predict_proba") else None
    kind = FloatTensorType([None, width])
    return convert_sklearn(model, initial_types=[("x", kind)], options=options, target_opset=_OPSET)
