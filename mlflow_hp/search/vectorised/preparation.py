"""Fits of a search, prepared up to their trainings: scikit-learn splits and transforms, scikeras builds the model."""

from __future__ import annotations

import contextlib
import math
import time
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, NamedTuple

import joblib
import numpy as np

from mlflow_hp._compat.patch import MethodPatch
from mlflow_hp._compat.private_name import UnsupportedVersionError, warn_once
from mlflow_hp._compat.scikeras import BUILD_KERAS_MODEL, FIT_KERAS_MODEL, has_callbacks
from mlflow_hp.search.speedups.scikeras_fit import sped_up
from mlflow_hp.search.vectorised.batches import keras_order
from mlflow_hp.search.vectorised.members import NotVectorisableError
from mlflow_hp.search.vectorised.network import Network, member_of, read_network

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterator

    from mlflow_hp.search.live.events import Call
    from mlflow_hp.search.speedups.scikeras_fit import KerasFit
    from mlflow_hp.search.vectorised.members import Member

FOLLOWED = ("verbose", "epochs", "batch_size", "validation_split", "validation_batch_size", "shuffle")
"""Arguments of ``keras.Model.fit`` that a vectorised training follows, or need not."""
DEFAULTS = {"validation_freq": 1, "initial_epoch": 0}
"""Other arguments, with values that change nothing."""


class PreparedFit(NamedTuple):
    """A fit up to its training.

    Attributes
    ----------
    call : Call
    estimator : estimator
        Fitted but for the training of its Keras model.
    keras_estimator : scikeras.wrappers.BaseWrapper
        The estimator of the Keras model: `estimator` itself, or the last step of a pipeline.
    x, y : ndarray
        Training data of the Keras model.
    network : Network
    member : Member
        With the rows of `x`.
    started, seconds : float
        Start in seconds since the epoch, and how long it took.
    """

    call: Call
    estimator: Any
    keras_estimator: Any
    x: np.ndarray
    y: np.ndarray
    network: Network
    member: Member
    started: float
    seconds: float


class Preparation:
    """Preparation of the fits of one round, which share what is the same for several of them."""

    def __init__(self) -> None:
        self._candidate: int | None = None
        self._models: dict[Any, Any] = {}
        self._networks: dict[Any, tuple[Network, Member]] = {}
        self._orders: dict[tuple[int, int], np.ndarray] = {}

    def prepare(self, call: Call) -> PreparedFit:
        """Prepare a fit by scikit-learn's own function, with the training left out.

        Parameters
        ----------
        call : Call
            Left as it is, so that it can still be computed.

        Raises
        ------
        NotVectorisableError
            If its training has no rule.
        Exception
            Of the user's code, which the plain fit raises as well.
        """
        from sklearn.base import clone

        started, clock = time.time(), time.perf_counter()
        if call.fit.candidate != self._candidate:
            self._candidate = call.fit.candidate
            self._models.clear()
            self._networks.clear()
        estimator = clone(call.arguments["estimator"])
        _check_kind(estimator)
        if call.arguments.get("fit_params"):
            raise NotVectorisableError(f"fit gets {', '.join(call.arguments['fit_params'])}")
        keras_fits: list[KerasFit] = []
        fitted: list[Any] = []
        changed = {"estimator": estimator, "scorer": _collector(fitted), "verbose": 0, "error_score": "raise"}
        changed |= {"return_train_score": False, "callback_ctx": None}
        arguments = {name: changed.get(name, value) for name, value in call.arguments.items()}
        with sped_up(_without_training(keras_fits), _raise_reason), _shared_models(self._models):
            call.function(**arguments)
        if len(keras_fits) != 1:
            raise NotVectorisableError(f"the estimator trains {len(keras_fits)} models of scikeras")
        (fit,) = keras_fits
        network, member = self._read(fit)
        seconds = time.perf_counter() - clock
        return PreparedFit(call, fitted[0], fit.estimator, fit.x, fit.y, network, member, started, seconds)

    def _read(self, fit: KerasFit) -> tuple[Network, Member]:
        """Read network and member of a training."""
        arguments, model = _checked_arguments(fit), fit.estimator.model_
        key = id(model), fit.x.shape[1:], fit.y.shape[1:]
        if key not in self._networks:
            network = read_network(model, fit.x, fit.y)
            self._networks[key] = network, member_of(model, network, np.arange(1), batch_size=1, epochs=1)
        network, member = self._networks[key]
        n = len(fit.x)
        n_train = math.floor(n * (1 - (arguments.get("validation_split") or 0.0)))
        batch_size = arguments.get("batch_size") or 32
        shuffles = arguments.get("shuffle", True)
        return network, member._replace(
            rows=np.arange(n_train),
            batch_size=n if batch_size == -1 else int(batch_size),
            epochs=int(fit.epochs),
            order=self._order(fit.estimator.random_state, n_train, fit.epochs) if shuffles else None,
            validation_rows=np.arange(n_train, n) if n_train < n else None,
        )

    def _order(self, seed: Any, n: int, epochs: int) -> np.ndarray:
        """Orders of `n` rows as Keras would shuffle them."""
        from scikeras.utils.random_state import tensorflow_random_state

        if isinstance(seed, (int, np.integer)):
            if (int(seed), n) not in self._orders:
                with tensorflow_random_state(int(seed)):
                    self._orders[int(seed), n] = keras_order(n)[None]
            return self._orders[int(seed), n]
        first, second = keras_order(n), keras_order(n)
        if np.array_equal(first, second):  # by TensorFlow's global seed
            return first[None]
        return np.random.default_rng().permuted(np.tile(np.arange(n), (epochs, 1)), axis=1)


def _check_kind(estimator: Any) -> None:
    """Refuse an estimator that may do more with its Keras model than train it once."""
    from scikeras.wrappers import BaseWrapper, KerasClassifier, KerasRegressor
    from sklearn.pipeline import Pipeline

    try:
        FIT_KERAS_MODEL.of(BaseWrapper)
    except UnsupportedVersionError as error:
        raise NotVectorisableError(str(error)) from error
    while type(estimator) is Pipeline:
        estimator = estimator.steps[-1][1]
    if type(estimator) not in (KerasClassifier, KerasRegressor):
        raise NotVectorisableError(
            f"{type(estimator).__name__} is not one of scikeras' own estimators, or a Pipeline of one"
        )


def _collector(fitted: list[Any]) -> Callable[..., float]:
    """Make a scorer that only keeps the estimator."""

    def score(estimator: Any, *_: Any, **__: Any) -> float:
        fitted.append(estimator)
        return 0.0

    return score


def _without_training(keras_fits: list[KerasFit]) -> Callable[[KerasFit], Generator[int, None, None]]:
    """Make a speed-up that keeps each training instead of running it."""

    def keep(fit: KerasFit) -> Generator[int, None, None]:
        keras_fits.append(fit)
        yield fit.epochs

    return keep


def _raise_reason(reason: str, _: bool) -> None:
    raise NotVectorisableError(reason)


def _checked_arguments(fit: KerasFit) -> dict[str, Any]:
    """Return the arguments of a training for ``keras.Model.fit``, if there is a rule for all."""
    import keras

    estimator, arguments = fit.estimator, fit.arguments()
    if not fit.is_plain() or isinstance(estimator.model, keras.Model):
        raise NotVectorisableError("the estimator continues an earlier training")
    if has_callbacks(estimator):
        raise NotVectorisableError("the estimator has callbacks")
    if fit.sample_weight is not None:
        raise NotVectorisableError("the rows have weights")
    for each in (fit.x, fit.y):
        if not isinstance(each, np.ndarray) or each.dtype.kind not in "fbiu":
            raise NotVectorisableError(f"the data are a {type(each).__name__}, not an array of numbers")
    for name, value in arguments.items():
        is_default = value is None or value == DEFAULTS.get(name)
        if not (name in FOLLOWED or name.startswith("callbacks") or is_default):
            raise NotVectorisableError(f"fit gets {name}")
    return arguments


_models: ContextVar[dict[Any, Any] | None] = ContextVar("mlflow_hp_models_of_a_candidate", default=None)


@contextlib.contextmanager
def _shared_models(models: dict[Any, Any]) -> Iterator[None]:
    """Let the folds of a candidate share the model that a seeded estimator builds for each of them alike."""
    from scikeras.wrappers import BaseWrapper

    try:
        BUILD_KERAS_MODEL.of(BaseWrapper)
    except UnsupportedVersionError as error:
        warn_once(error)
        yield
        return
    with _patch.on(BaseWrapper):
        token = _models.set(models)
        try:
            yield
        finally:
            _models.reset(token)


def _build(original: Callable[[Any], Any], estimator: Any) -> Any:
    """Build a model in place of scikeras' own method, unless one with the same seed and data types is there."""
    models = _models.get()
    if models is None or not isinstance(estimator.random_state, (int, np.integer)):
        return original(estimator)
    learnt = {name: value for name, value in vars(estimator).items() if name.endswith("_") and name[0] != "_"}
    learnt.pop("model_", None)
    key = joblib.hash((learnt, estimator.random_state))
    if key not in models:
        models[key] = original(estimator)
    return models[key]


_patch = MethodPatch(BUILD_KERAS_MODEL.name, _build)
