"""L-BFGS multinomial logistic regression in float32, with features sharded over a mesh."""

from __future__ import annotations

from functools import lru_cache, partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jaxtyping import Array, Float, Int

from jaxformers.errors import DataError
from jaxformers.sharding.state import BATCH_AXES

ROUNDS = 20
MAX_ITERATIONS = 200  # of a round
TOLERANCE = 1e-6  # length of the gradient beside that of the variables, near a Newton step's
STALLED = 20  # iterations without a smaller gradient: float32's resolution is reached
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
    """Features on devices, rows over `data` and `fsdp`; rows of padding are zero."""

    features: Float[Array, "N D"]
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
    padded = _pad(np.asarray(features, np.float32), mesh)
    return PlacedRows(_place(padded, mesh), np.asarray(labels), mesh)


def fit_logistic_regression(
    rows: PlacedRows, penalty: float, subset: slice = slice(None)
) -> LinearClassifier:
    """Minimises `sum_i CE_i / penalty + ||W||^2 / 2`; the intercept is not penalised.

    The objective and the form of the weights are those of scikit-learn's `LogisticRegression`
    with `C = 1 / penalty` (two classes have one weight vector and a sigmoid). On separable rows
    float32 gives weights within 1e-3 of the largest for penalties from about 1e-3 on, and within
    3e-2 at 1e-6.

    Args:
        rows: features and labels, from `place_rows`.
        penalty: the strength of the regularisation, above 0.
        subset: which rows are fitted.

    Raises:
        DataError: fewer than two classes among the rows.
    """
    classes, codes = np.unique(rows.labels[subset], return_inverse=True)
    if len(classes) < 2:
        raise DataError(f"a classifier needs rows of two classes, and here is {classes.tolist()}")
    labels = np.zeros(len(rows.labels), np.int32)
    weights = np.zeros(len(rows.labels), np.float32)
    labels[subset], weights[subset] = codes, 1
    labels, weights = (_place(_pad(array, rows.mesh), rows.mesh) for array in (labels, weights))
    replicated = None if rows.mesh is None else NamedSharding(rows.mesh, PartitionSpec())
    solve = _compiled_solver(len(classes), replicated)
    coefficients, intercepts = solve(rows.features, labels, weights, jnp.float32(penalty))
    return LinearClassifier(classes, np.asarray(coefficients).T, np.asarray(intercepts))


def _pad(array: np.ndarray, mesh: Mesh | None) -> np.ndarray:
    shards = 1 if mesh is None else int(np.prod([mesh.shape[axis] for axis in BATCH_AXES]))
    padding = [(0, -len(array) % shards)] + [(0, 0)] * (array.ndim - 1)
    return np.pad(array, padding)


def _place(array: np.ndarray, mesh: Mesh | None) -> jax.Array:
    if mesh is None:
        return jnp.asarray(array)
    sharding = NamedSharding(mesh, PartitionSpec(BATCH_AXES))
    return jax.make_array_from_callback(array.shape, sharding, lambda index: array[index])


@lru_cache(maxsize=8)
def _compiled_solver(classes: int, replicated: NamedSharding | None):
    return jax.jit(partial(_solve, classes=classes), out_shardings=replicated)


def _solve(features, labels, weights, penalty, *, classes: int):
    """The weights `[D, J]` and intercepts `[J]` of the rows whose weight is 1.

    L-BFGS in several rounds: before each the variables are changed by the Hessian's estimate at
    the current weights, without which float32 does not converge on separable rows.
    """
    total = weights.sum()
    mean = jnp.einsum("n,nd->d", weights, features, precision=HIGHEST) / total
    features = (features - mean[None]) * weights[:, None]  # an intercept absorbs the mean
    ridge = penalty / total

    def logits_of(w, b):
        logits = jnp.matmul(features, w, precision=HIGHEST) + b[None]
        return jnp.pad(logits, ((0, 0), (1, 0))) if classes == 2 else logits

    def objective(w, b):
        losses = _cross_entropy(logits_of(w, b), labels)
        return (losses * weights).sum() / total + 0.5 * ridge * (w**2).sum()

    def improve(_, solution):
        probabilities = jax.nn.softmax(logits_of(*solution)) * weights[:, None]
        change = _change_of_variables(features, probabilities, ridge)
        return change.inverse(
            *_minimise(lambda v: objective(*change.inverse(*v)), change.forward(*solution))
        )

    columns = 1 if classes == 2 else classes
    start = (jnp.zeros((features.shape[1], columns)), jnp.zeros(columns))
    w, b = jax.lax.fori_loop(0, ROUNDS, improve, start)
    b = b - jnp.matmul(mean, w, precision=HIGHEST)
    return w, b if classes == 2 else b - b.mean()  # softmax ignores a common constant


def _cross_entropy(logits, labels):
    """Cross-entropy `[N]` with gradients that are exact relative to their size.

    `softmax - one_hot` loses all digits where a row is right by a large margin.
    """
    chosen = jax.nn.one_hot(labels, logits.shape[1], dtype=bool)
    margins = logits - jnp.where(chosen, logits, 0).sum(axis=1, keepdims=True)
    return jax.nn.softplus(jax.nn.logsumexp(jnp.where(chosen, -jnp.inf, margins), axis=1))


class _ChangeOfVariables(NamedTuple):
    """`W = basis @ (scale * u)`, `b = intercept_scale * v - centre @ W`."""

    basis: Float[Array, "D D"]
    scale: Float[Array, "D J"]
    intercept_scale: Float[Array, "J"]
    centre: Float[Array, "D"]

    def inverse(self, u, v):
        w = jnp.matmul(self.basis, self.scale * u, precision=HIGHEST)
        return w, self.intercept_scale * v - jnp.matmul(self.centre, w, precision=HIGHEST)

    def forward(self, w, b):
        v = (b + jnp.matmul(self.centre, w, precision=HIGHEST)) / self.intercept_scale
        return jnp.matmul(self.basis.T, w, precision=HIGHEST) / self.scale, v


def _change_of_variables(features, probabilities, ridge) -> _ChangeOfVariables:
    """The variables in which the Hessian is near the identity.

    A class's block of it, `sum_i p_ik (1 - p_ik) x_i x_i^T`, is taken as the covariance of the
    features, weighted by each row's curvature, times the curvature of the class.
    """
    total = probabilities.sum()
    curvature = probabilities * (1 - probabilities)  # [N, K]
    rows = curvature.sum(axis=1) / curvature.sum()
    centre = jnp.einsum("n,nd->d", rows, features, precision=HIGHEST)
    centred = features - centre[None]
    covariance = jnp.matmul((centred * rows[:, None]).T, centred, precision=HIGHEST)
    eigenvalues, basis = jnp.linalg.eigh(covariance)
    by_class = curvature.sum(axis=0) / total + 1e-12
    by_class = by_class[1:] if len(by_class) == 2 else by_class
    scale = jax.lax.rsqrt(jnp.maximum(eigenvalues, 0)[:, None] * by_class[None] + ridge)
    return _ChangeOfVariables(basis, scale, jax.lax.rsqrt(by_class), centre)


def _minimise(objective, start):
    """The variables with the smallest gradient that L-BFGS meets."""
    optimizer = optax.lbfgs(memory_size=20)
    value_and_grad = optax.value_and_grad_from_state(objective)

    def unfinished(carry):
        variables, _, _, smallest, stalled, iteration = carry
        unconverged = smallest > TOLERANCE * optax.tree.norm(variables)
        return (iteration < MAX_ITERATIONS) & (stalled < STALLED) & unconverged

    def iterate(carry):
        variables, state, best, smallest, stalled, iteration = carry
        value, gradient = value_and_grad(variables, state=state)
        norm = optax.tree.norm(gradient)
        better = norm < smallest
        best = jax.tree.map(lambda new, old: jnp.where(better, new, old), variables, best)
        updates, state = optimizer.update(
            gradient, state, variables, value=value, grad=gradient, value_fn=objective
        )
        variables = optax.apply_updates(variables, updates)
        stalled = jnp.where(better, 0, stalled + 1)
        return variables, state, best, jnp.minimum(norm, smallest), stalled, iteration + 1

    carry = (start, optimizer.init(start), start, jnp.float32(jnp.inf), 0, 0)
    return jax.lax.while_loop(unfinished, iterate, carry)[2]
