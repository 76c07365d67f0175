"""Largest eigenvalues, trace and smoothness of the Hessian of a Keras model's loss, by products with vectors."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import keras
import numpy as np
from tqdm import tqdm

from mlflow_hp.analysis.surfaces.symmetric_operator import (
    SymmetricOperator,
    largest_eigenvalues,
    largest_magnitude,
    trace_of,
)
from mlflow_hp.errors import UserError
from mlflow_hp.terminal import count
from mlflow_hp.training.stateless_loss import draw_rows, loss_at, prepare_loss, trainable_variables

if TYPE_CHECKING:
    from collections.abc import Callable

FEW_WEIGHTS = 300
"""Up to so many weights, the Hessian itself is computed, column by column."""


class HessianSpectrum(NamedTuple):
    """Curvature of a loss at some weights.

    Attributes
    ----------
    eigenvalues : ndarray of shape (n_eigenvalues,)
        Largest eigenvalues of the Hessian, descending; nan for one that did not converge.
    trace : float
        Sum of all eigenvalues.
    trace_error : float
        Standard error of the trace; 0 if it is exact.
    smoothness : float
        Largest absolute eigenvalue: the local Lipschitz constant of the gradient (Nesterov 2018, "Lectures on convex
        optimization", section 1.2.2). Gradient descent with a learning rate above 2 / the largest eigenvalue leaves
        this place (Cohen et al. 2021).
    n_weights : int
        Number of trainable weights.
    n_products : int
        Number of products of the Hessian and a vector that were computed.
    n_samples : int
        Rows of data that the loss is the mean of.

    Examples
    --------
    >>> import keras, numpy as np
    >>> from mlflow_hp.training import hessian_spectrum
    >>> model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1, use_bias=False)])
    >>> model.compile("sgd", "mse")
    >>> spectrum = hessian_spectrum(model, np.array([[1.0], [2.0]]), np.zeros(2), n_eigenvalues=1, progress=False)
    >>> spectrum.metrics()
    {'hessian/eigenvalue_1': 5.0, 'hessian/trace': 5.0, 'hessian/trace_error': 0.0, 'hessian/smoothness': 5.0}
    """

    eigenvalues: np.ndarray
    trace: float
    trace_error: float
    smoothness: float
    n_weights: int
    n_products: int
    n_samples: int

    def metrics(self) -> dict[str, float]:
        """Return the numbers for ``mlflow.log_metrics``; eigenvalues count from 1, the largest.

        Returns
        -------
        dict of str to float
            Name of the metric -> number.
        """
        values = {f"hessian/eigenvalue_{i}": float(value) for i, value in enumerate(self.eigenvalues, start=1)}
        return {
            **values,
            "hessian/trace": self.trace,
            "hessian/trace_error": self.trace_error,
            "hessian/smoothness": self.smoothness,
        }


def hessian_spectrum(
    model: Any,
    x: Any,
    y: Any,
    *,
    n_eigenvalues: int = 5,
    n_samples: int = 2000,
    tolerance: float = 0.01,
    max_products: int = 1000,
    seed: int = 0,
    progress: bool = True,
) -> HessianSpectrum:
    """Compute the largest eigenvalues, the trace and the smoothness of the Hessian of the loss at a model's weights.

    The loss is that of ``model.evaluate``, by the trainable weights, on TensorFlow. The Hessian itself is not
    computed, only its products with vectors: the eigenvalues by Lanczos' method (ARPACK), the trace by Hutch++ (Meyer,
    Musco, Musco and Woodruff 2021). Of a model with at most 300 weights, all is exact. The model is not modified.

    Parameters
    ----------
    model : keras.Model
        Compiled and built; with the weights that its training ended with.
    x, y : array_like, or nested structures of them
        Inputs and targets, as for ``model.evaluate``: of the training, to compare with its learning rate.
    n_eigenvalues : int
        Number of largest eigenvalues, at most the number of weights. Defaults to 5.
    n_samples : int
        Number of rows, drawn by `seed`, that the loss is the mean of; all if there are no more. Defaults to 2000.
    tolerance : float
        Relative error: of an eigenvalue, a bound; of the trace, three standard errors, unless `max_products` are used
        up. Defaults to 0.01.
    max_products : int
        Most products of the Hessian and a vector, 200 and 20 for each eigenvalue or more; each takes the time of a few
        training steps on all rows. At most half are for the eigenvalues. Defaults to 1000.
    seed : int
        Seed for drawing the rows and vectors. Defaults to 0.
    progress : bool
        Whether to show a progress bar. Defaults to True.

    Returns
    -------
    HessianSpectrum
        The numbers; ``mlflow.log_metrics(spectrum.metrics())`` logs them.

    Raises
    ------
    UserError
        If the model is not compiled or not built, has no trainable weights or too few for so many eigenvalues, an
        argument is out of range, the backend is not TensorFlow, the loss has no second derivative, or the Hessian is
        not finite.

    Examples
    --------
    >>> import keras, mlflow, numpy as np
    >>> from mlflow_hp.training import hessian_spectrum
    >>> model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
    >>> model.compile("sgd", "mse")
    >>> x = np.arange(16.0).reshape(8, 2) / 16
    >>> with mlflow.start_run():
    ...     _ = model.fit(x, x.sum(axis=1), epochs=3, verbose=0)
    ...     spectrum = hessian_spectrum(model, x, x.sum(axis=1), n_eigenvalues=2, progress=False)
    ...     mlflow.log_metrics(spectrum.metrics())
    >>> spectrum.eigenvalues.round(2), round(spectrum.trace, 2)
    (array([2.99, 0.22]), 3.21)
    """
    if keras.backend.backend() != "tensorflow":
        raise UserError(
            f"the backend {keras.backend.backend()!r} is not supported: second derivatives are computed with "
            "TensorFlow; set KERAS_BACKEND=tensorflow"
        )
    if not 0 < tolerance < 1:
        raise UserError(f"tolerance={tolerance} is no relative error; give a number between 0 and 1, such as 0.01")
    variables = list(trainable_variables(model).values())
    n_weights = sum(int(np.prod(variable.shape)) for variable in variables)
    if not 1 <= n_eigenvalues <= n_weights:
        raise UserError(
            f"n_eigenvalues={n_eigenvalues} of a model with {n_weights} trainable weights; give 1 to {n_weights}"
            if n_weights
            else f"the model {model.name!r} has no trainable weights; make a layer trainable"
        )
    least = max(200, 20 * n_eigenvalues)
    if max_products < least:
        raise UserError(
            f"max_products={max_products} is too small for {count(n_eigenvalues, 'eigenvalue')}; give {least} or more"
        )
    rows = draw_rows(x, y, n_samples=n_samples, batch_size=1024, seed=seed)
    with tqdm(desc="Hessian", unit=" products", leave=False, disable=not progress) as bar:
        operator = SymmetricOperator(_product(model, variables, rows), n_weights, progress=bar.update)
        if n_weights <= FEW_WEIGHTS:
            every = np.linalg.eigvalsh(operator.dense())[::-1]
            values, trace, error, smoothness = every[:n_eigenvalues], float(every.sum()), 0.0, float(abs(every).max())
        else:
            values = largest_eigenvalues(operator, n_eigenvalues, tolerance, max_products // 4, seed)
            smoothness = largest_magnitude(operator, tolerance, max_products // 4, seed)
            trace, error = trace_of(operator, tolerance, max_products - operator.n_products, seed)
    return HessianSpectrum(values, trace, error, smoothness, n_weights, operator.n_products, rows.n)


def _product(model: Any, variables: list[Any], rows: Any) -> Callable[[np.ndarray], np.ndarray]:
    """Return the function from a vector (n_weights,) to its product with the Hessian, both float64."""
    import tensorflow as tf

    from mlflow_hp.training.capture.hessian_product import hessian_product, vector_dtype

    prepare_loss(model, rows)
    weights = [tf.convert_to_tensor(variable.value) for variable in variables]
    dtypes = [vector_dtype(variable) for variable in variables]
    ends = np.cumsum([int(np.prod(weight.shape)) for weight in weights])[:-1]

    def batch_product(values: Any, vectors: Any, x: Any, y: Any) -> Any:
        return hessian_product(lambda at: loss_at(model, variables, at, x, y), values, vectors)

    compiled = batch_product if model.run_eagerly else tf.function(batch_product, autograph=False)

    def product(vector: np.ndarray) -> np.ndarray:
        vectors = [
            tf.constant(part.reshape(weight.shape), dtype)
            for part, weight, dtype in zip(np.split(vector, ends), weights, dtypes, strict=True)
        ]
        total = np.zeros(len(vector))
        for (x, y), share in zip(rows.batches, rows.shares, strict=True):
            try:
                parts = compiled(weights, vectors, x, y)
            except LookupError as error:
                raise UserError(
                    f"TensorFlow has no second derivative of the loss of {model.name!r}: {error}"
                ) from error
            total += share * np.concatenate([np.ravel(part.numpy()).astype(np.float64) for part in parts])
        if not np.isfinite(total).all():
            raise UserError(
                f"the Hessian of the loss of {model.name!r} is not finite at its weights: the training diverged, or "
                "the data are not finite; load weights of an earlier step"
            )
        return total

    return product
