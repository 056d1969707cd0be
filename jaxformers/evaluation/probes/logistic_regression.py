"""Multinomial logistic regression by Newton's method, with features sharded over a mesh.

Newton's equations are solved by conjugate gradients in float32; the gradient that they reduce is
computed in float64, so the solution has float64's accuracy. (TPUs have no float64 matrix product:
there it is float32 throughout.)

Axis letters: N rows on the devices, D features, K classes, J columns of weights (1 of two classes,
else K).
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jaxtyping import Array, Float, Int

from jaxformers.errors import DataError
from jaxformers.sharding.state import BATCH_AXES

NEWTON_STEPS = 100
CG_ITERATIONS = 1000
HALVINGS = 30  # of a step that does not decrease the objective
TOLERANCE = 1e-6  # largest change of a weight, beside the largest weight
LOOSEST, TIGHTEST = 0.3, 1e-3  # residual of the conjugate gradients beside the first
HIGHEST = jax.lax.Precision.HIGHEST


class LinearClassifier(NamedTuple):
    """A fitted classifier, in the layout of scikit-learn's `coef_` and `intercept_`."""

    classes: Int[np.ndarray, "K"]
    coefficients: Float[np.ndarray, "J D"]
    """J = K, or 1 where there are two classes."""
    intercepts: Float[np.ndarray, "J"]

    def predict(self, features: Float[np.ndarray, "B D"]) -> Int[np.ndarray, "B"]:
        """The class with the largest logit in each row."""
        logits = features @ self.coefficients.T + self.intercepts
        if len(self.classes) == 2:
            logits = np.concatenate([np.zeros_like(logits), logits], axis=1)
        return self.classes[np.argmax(logits, axis=1)]


class PlacedRows(NamedTuple):
    """Centred features on devices, rows over `data` and `fsdp`; rows of padding are zero."""

    features: Float[Array, "N D"]
    mean: Float[np.ndarray, "D"]
    eigenvalues: Float[np.ndarray, "D"]
    """Of the features' covariance, by whose inverse conjugate gradients are preconditioned."""
    eigenvectors: Float[np.ndarray, "D D"]
    labels: Int[np.ndarray, "B"]
    mesh: Mesh | None


def place_rows(
    features: Float[np.ndarray, "B D"], labels: Int[np.ndarray, "B"], mesh: Mesh | None = None
) -> PlacedRows:
    """Copies features to the devices once, to be fitted with several penalties.

    Raises:
        DataError: unequal numbers of rows, no row, or a value that is not finite.
    """
    if features.ndim != 2 or len(features) != len(labels) or not len(labels):
        raise DataError(
            f"features of shape {features.shape} with {len(labels)} labels: one label for each "
            "row [B, D], and at least one row, are needed"
        )
    if not np.isfinite(features).all():
        raise DataError("features hold a value that is not finite: compute them again")
    mean = features.mean(axis=0, dtype=np.float64)
    centred = (features - mean).astype(np.float32)
    placed = _place(_pad(centred, mesh), mesh)
    products = _product_program(_sharding(mesh))(placed)
    eigenvalues, eigenvectors = np.linalg.eigh(np.asarray(products, np.float64) / len(labels))
    return PlacedRows(
        placed,
        mean,
        np.maximum(eigenvalues, 0).astype(np.float32),
        eigenvectors.astype(np.float32),
        np.asarray(labels),
        mesh,
    )


def fit_logistic_regression(
    rows: PlacedRows,
    penalty: float,
    subset: slice = slice(None),
    start: LinearClassifier | None = None,
) -> LinearClassifier:
    """Minimises `sum_i CE_i / penalty + ||W||^2 / 2`; the intercept is not penalised.

    The objective and the form of the weights are those of scikit-learn's `LogisticRegression`
    with `C = 1 / penalty` (two classes have one weight vector and a sigmoid). The weights are its
    solution's at `tol=1e-10` within 1e-3.

    Args:
        rows: features and labels, from `place_rows`.
        penalty: the strength of the regularisation, above 0.
        subset: which rows are fitted.
        start: weights to start from, such as those of a near penalty; ignored if of other classes.

    Raises:
        DataError: fewer than two classes among the rows.
    """
    classes, codes = np.unique(rows.labels[subset], return_inverse=True)
    if len(classes) < 2:
        raise DataError(f"a classifier needs rows of two classes, and here is {classes.tolist()}")
    labels = np.zeros(len(rows.labels), np.int32)
    weights = np.zeros(len(rows.labels), np.float32)
    labels[subset], weights[subset] = codes, 1 / len(codes)
    columns = 1 if len(classes) == 2 else len(classes)
    w, b = np.zeros((len(rows.mean), columns)), np.zeros(columns)
    if start is not None and np.array_equal(start.classes, classes):
        w = start.coefficients.T
        b = start.intercepts + rows.mean @ w
    with jax.enable_x64(True):
        problem = _Problem(rows, labels, weights, penalty / len(codes))
        w, b = _minimise(problem, w, b)
    b = b - rows.mean @ w
    # Softmax ignores a constant that all classes have in common.
    return LinearClassifier(classes, w.T, b if columns == 1 else b - b.mean())


class _Gradient(NamedTuple):
    """The objective and its gradient at some weights."""

    value: float
    w: Float[np.ndarray, "D J"]
    b: Float[np.ndarray, "J"]
    probabilities: Float[Array, "N K"]


class _Problem:
    """The mean cross-entropy of weighted rows plus `ridge ||W||^2 / 2`."""

    def __init__(self, rows: PlacedRows, labels: np.ndarray, weights: np.ndarray, ridge: float):
        self._rows, self._ridge = rows, ridge
        self._data = tuple(_place(_pad(array, rows.mesh), rows.mesh) for array in (labels, weights))
        platform = next(iter(rows.features.devices())).platform
        self._dtype = np.float32 if platform == "tpu" else np.float64
        self._programs = _programs(_sharding(rows.mesh))

    def gradient(self, w: np.ndarray, b: np.ndarray) -> _Gradient:
        """The objective and its gradient, in float64."""
        w, b = (np.asarray(x, self._dtype) for x in (w, b))
        ridge = self._dtype(self._ridge)
        value, *gradient, probabilities = self._programs[0](
            self._rows.features, *self._data, w, b, ridge
        )
        return _Gradient(
            float(value), *(np.asarray(x, np.float64) for x in gradient), probabilities
        )

    def newton_step(self, gradient: _Gradient, tolerance: float) -> tuple[np.ndarray, np.ndarray]:
        """Solves `H step = -gradient` within a relative tolerance, in float32."""
        # float32's range does not hold the squares of tiny gradients.
        size = max(np.abs(gradient.w).max(), np.abs(gradient.b).max()) or 1.0
        rows = self._rows
        step = self._programs[1](
            rows.features,
            *self._data,
            gradient.probabilities,
            (gradient.w / size).astype(np.float32),
            (gradient.b / size).astype(np.float32),
            np.float32(self._ridge),
            np.float32(tolerance),
            rows.eigenvalues,
            rows.eigenvectors,
        )
        return tuple(size * np.asarray(x, np.float64) for x in step)


def _minimise(problem: _Problem, w: np.ndarray, b: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Newton's method with a backtracking line search."""
    gradient, change = problem.gradient(w, b), 1.0
    for _ in range(NEWTON_STEPS):
        # Loose far from the solution, tight near it: steps then converge superlinearly.
        tolerance = float(np.clip(change, TIGHTEST, LOOSEST))
        step_w, step_b = problem.newton_step(gradient, tolerance)
        slope = (gradient.w * step_w).sum() + (gradient.b * step_b).sum()
        rate = 1.0
        for _ in range(HALVINGS):
            candidate = problem.gradient(w + rate * step_w, b + rate * step_b)
            rounding = 1e-14 * abs(gradient.value)
            if candidate.value <= gradient.value + 1e-4 * rate * slope + rounding:
                break
            rate /= 2
        else:
            return w, b  # no descent left within the arithmetic's resolution
        w, b, gradient = w + rate * step_w, b + rate * step_b, candidate
        change = rate * np.abs(step_w).max() / (np.abs(w).max() or 1.0)
        if rate == 1 and change < TOLERANCE:
            break
    return w, b


@lru_cache(maxsize=8)
def _product_program(rows: NamedSharding | None):
    """Compiled `X^T X` of features with rows sharded."""
    return jax.jit(lambda x: jnp.matmul(x.T, x, precision=HIGHEST), out_shardings=_whole(rows))


@lru_cache(maxsize=8)
def _programs(rows: NamedSharding | None):
    """The compiled gradient and Newton step of features with rows sharded."""
    whole = _whole(rows)
    return (
        jax.jit(_gradient, out_shardings=(whole, whole, whole, rows)),
        jax.jit(_newton_step, out_shardings=whole),
    )


def _gradient(features, labels, weights, w, b, ridge):
    """The objective, its gradient `[D, J]` and `[J]`, and float32 probabilities `[N, K]`."""
    x, weights = features.astype(w.dtype), weights.astype(w.dtype)
    logits = _all_classes(jnp.matmul(x, w, precision=HIGHEST) + b[None])  # [N, K]
    target = jax.nn.one_hot(labels, logits.shape[1], dtype=bool)
    margins = logits - _of_target(logits, target)
    # softmax - one_hot and the loss, without cancellation where a row is right by a large margin.
    losses = jax.nn.softplus(jax.nn.logsumexp(jnp.where(target, -jnp.inf, margins), axis=1))
    probabilities = jax.nn.softmax(logits, axis=1)
    errors = jnp.where(target, 0, probabilities)
    residuals = jnp.where(target, -errors.sum(axis=1, keepdims=True), probabilities)
    residuals = (residuals * weights[:, None])[:, -w.shape[1] :]  # [N, J]
    value = (losses * weights).sum() + 0.5 * ridge * (w**2).sum()
    gradient = jnp.matmul(x.T, residuals, precision=HIGHEST) + ridge * w
    return value, gradient, residuals.sum(axis=0), probabilities.astype(jnp.float32)


def _newton_step(
    x, labels, weights, probabilities, gradient_w, gradient_b, ridge, tolerance, eigenvalues, basis
):
    """Preconditioned conjugate gradients for `H (step_w, step_b) = -gradient`."""
    columns = gradient_b.shape[0]
    target = jax.nn.one_hot(labels, probabilities.shape[1], dtype=bool)
    weighted = probabilities * weights[:, None]  # [N, K]
    errors = jnp.where(target, 0, weighted)
    missing = errors.sum(axis=1, keepdims=True)  # weight (1 - p) of the target
    curvature = jnp.where(target, missing * probabilities, errors * (1 - probabilities))
    by_class = curvature.sum(axis=0)[-columns:] + 1e-12  # [J]

    def hessian(vector):
        v, c = vector
        z = _all_classes(jnp.matmul(x, v, precision=HIGHEST) + c[None])
        z = z - _of_target(z, target)
        mean = (jnp.where(target, 0, probabilities) * z).sum(axis=1, keepdims=True)
        r = jnp.where(target, -mean * weighted, weighted * (z - mean))[:, -columns:]
        return jnp.matmul(x.T, r, precision=HIGHEST) + ridge * v, r.sum(axis=0)

    def precondition(vector):
        """Divides by the covariance times each class's curvature, the Hessian's block diagonal."""
        v, c = vector
        scaled = jnp.matmul(basis.T, v, precision=HIGHEST)
        scaled = scaled / (eigenvalues[:, None] * by_class[None] + ridge)
        return jnp.matmul(basis, scaled, precision=HIGHEST), c / by_class

    return _conjugate_gradients(hessian, precondition, (-gradient_w, -gradient_b), tolerance)


def _conjugate_gradients(apply, precondition, residual, tolerance) -> Any:
    """Solves `apply(solution) = residual` until the residual's norm is `tolerance` of the first."""

    def add(a, factor, b):
        return jax.tree.map(lambda x, y: x + factor * y, a, b)

    def dot(a, b):
        return sum(jax.tree.leaves(jax.tree.map(jnp.vdot, a, b)))

    def unfinished(carry):
        *_, norm, iteration = carry
        return (iteration < CG_ITERATIONS) & (norm > tolerance**2 * first)

    def iterate(carry):
        solution, residual, direction, norm, iteration = carry
        image = apply(direction)
        rate = norm / dot(direction, image)
        solution, residual = add(solution, rate, direction), add(residual, -rate, image)
        preconditioned = precondition(residual)
        new_norm = dot(residual, preconditioned)
        direction = add(preconditioned, new_norm / norm, direction)
        return solution, residual, direction, new_norm, iteration + 1

    direction = precondition(residual)
    first = dot(residual, direction)
    carry = (jax.tree.map(jnp.zeros_like, residual), residual, direction, first, 0)
    return jax.lax.while_loop(unfinished, iterate, carry)[0]


def _all_classes(logits):
    """Logits of both classes where there is one column."""
    return jnp.pad(logits, ((0, 0), (1, 0))) if logits.shape[1] == 1 else logits


def _of_target(values, target):
    return jnp.where(target, values, 0).sum(axis=1, keepdims=True)


def _pad(array: np.ndarray, mesh: Mesh | None) -> np.ndarray:
    shards = 1 if mesh is None else int(np.prod([mesh.shape[axis] for axis in BATCH_AXES]))
    padding = [(0, -len(array) % shards)] + [(0, 0)] * (array.ndim - 1)
    return np.pad(array, padding)


def _place(array: np.ndarray, mesh: Mesh | None) -> jax.Array:
    if mesh is None:
        return jnp.asarray(array)
    return jax.make_array_from_callback(array.shape, _sharding(mesh), lambda index: array[index])


def _sharding(mesh: Mesh | None) -> NamedSharding | None:
    """Rows over `data` and `fsdp`."""
    return None if mesh is None else NamedSharding(mesh, PartitionSpec(BATCH_AXES))


def _whole(rows: NamedSharding | None) -> NamedSharding | None:
    """The same array on every device."""
    return None if rows is None else NamedSharding(rows.mesh, PartitionSpec())
