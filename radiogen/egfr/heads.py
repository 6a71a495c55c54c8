"""A small torch network as a scikit-learn classifier."""

import math
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.model_selection import train_test_split
from sklearn.utils import check_random_state
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_is_fitted, validate_data
from torch import Tensor

from radiogen.runtime import pick_device

Weights = dict[str, Tensor]
Shapes = dict[str, tuple[int, ...]]


class MlpHead(ClassifierMixin, BaseEstimator):  # type: ignore[misc]
    """One hidden layer with dropout, AdamW on all samples at once, early stopping on an inner split.

    Where a class has fewer than four samples there is no split and it trains for `epochs`. What is learned
    is kept as NumPy arrays in `weights_`.

    Args:
        hidden: Width of the hidden layer.
        dropout: Share of the hidden units left out at a step.
        decay: Weight decay.
        rate: Learning rate.
        epochs: Most steps.
        patience: Steps without a better loss on the inner split before it stops.
        random_state: Seed of start weights, dropout and split; no global state is touched.
        device: As `radiogen.runtime.pick_device` takes it.
    """

    def __init__(
        self,
        hidden: int = 16,
        dropout: float = 0.2,
        decay: float = 0.01,
        rate: float = 0.01,
        epochs: int = 200,
        patience: int = 20,
        random_state: Any = None,
        device: str = "cpu",
    ) -> None:
        self.hidden = hidden
        self.dropout = dropout
        self.decay = decay
        self.rate = rate
        self.epochs = epochs
        self.patience = patience
        self.random_state = random_state
        self.device = device

    def fit(self, X: Any, y: Any) -> Self:
        X, y = validate_data(self, X, y, dtype=np.float32)
        check_classification_targets(y)
        self.classes_, labels = np.unique(y, return_inverse=True)
        if len(self.classes_) < 2:
            raise ValueError(f"Classifier can't train when only one class is present: {self.classes_[0]!r}")
        seed = int(check_random_state(self.random_state).randint(2**31 - 1))
        train, stop = _inner_split(labels, seed)
        device = pick_device(self.device)
        inputs = torch.as_tensor(X, device=device)
        targets = torch.as_tensor(labels, device=device)
        weights = self._train(inputs, targets, train, stop, torch.Generator().manual_seed(seed))
        self.weights_ = {name: weight.cpu().numpy() for name, weight in weights.items()}
        return self

    def _train(
        self, inputs: Tensor, targets: Tensor, train: Tensor, stop: Tensor | None, chance: torch.Generator
    ) -> Weights:
        shapes = self.weight_shapes(inputs.shape[1], len(self.classes_))
        weights = _start(shapes, chance, inputs.device)
        optimizer = torch.optim.AdamW(weights.values(), lr=self.rate, weight_decay=self.decay)
        best, best_loss, waited = _copy(weights), float("inf"), 0
        for epoch in range(1, self.epochs + 1):
            self.n_iter_ = epoch
            keep = torch.rand(len(train), self.hidden, generator=chance) >= self.dropout
            logits = forward(weights, inputs[train], keep.to(inputs.device) / (1 - self.dropout))
            loss = torch.nn.functional.cross_entropy(logits, targets[train])
            optimizer.zero_grad()
            torch.autograd.backward(loss)
            optimizer.step()
            if stop is None:
                continue
            with torch.no_grad():
                judged = torch.nn.functional.cross_entropy(forward(weights, inputs[stop]), targets[stop])
            waited += 1
            if float(judged) < best_loss:
                best, best_loss, waited = _copy(weights), float(judged), 0
            if waited >= self.patience:
                break
        return best if stop is not None else _copy(weights)

    def weight_shapes(self, features: int, classes: int) -> Shapes:
        """Shape of each learned array, by its name in `weights_`."""
        return {
            "hidden.weight": (features, self.hidden),
            "hidden.bias": (self.hidden,),
            "out.weight": (self.hidden, classes),
            "out.bias": (classes,),
        }

    def predict_proba(self, X: Any) -> NDArray[np.float64]:
        check_is_fitted(self)
        X = validate_data(self, X, dtype=np.float64, reset=False)
        weights = {name: torch.from_numpy(weight).double() for name, weight in self.weights_.items()}
        logits = forward(weights, torch.from_numpy(X))
        result: NDArray[np.float64] = torch.softmax(logits, dim=1).numpy()
        return result

    def predict(self, X: Any) -> NDArray[Any]:
        best = self.predict_proba(X).argmax(1)
        result: NDArray[Any] = self.classes_[best]
        return result


def forward(weights: Weights, inputs: Tensor, kept: Tensor | float = 1.0) -> Tensor:
    """Logits (samples, classes) of inputs (samples, features); `kept` scales the hidden units."""
    hidden = torch.relu(inputs @ weights["hidden.weight"] + weights["hidden.bias"]) * kept
    logits: Tensor = hidden @ weights["out.weight"] + weights["out.bias"]
    return logits


def _start(shapes: Shapes, chance: torch.Generator, device: torch.device) -> Weights:
    weights = {
        name: torch.zeros(shape)
        if len(shape) == 1
        else torch.randn(shape, generator=chance).mul(math.sqrt(2 / shape[0]))
        for name, shape in shapes.items()
    }
    return {name: weight.to(device).requires_grad_() for name, weight in weights.items()}


def _copy(weights: Weights) -> Weights:
    return {name: weight.detach().clone() for name, weight in weights.items()}


def _inner_split(labels: NDArray[Any], seed: int) -> tuple[Tensor, Tensor | None]:
    rows = np.arange(len(labels))
    if np.bincount(labels).min() < 4:
        return torch.from_numpy(rows), None
    train, stop = train_test_split(rows, test_size=0.25, stratify=labels, random_state=seed % 2**32)
    return torch.from_numpy(train), torch.from_numpy(stop)
