"""What the torch heads share: a scikit-learn classifier that trains weights with early stopping."""

import math
from typing import Any, ClassVar, Self

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


class TorchHead(ClassifierMixin, BaseEstimator):  # type: ignore[misc]
    """AdamW on all samples at once, early stopping on an inner split, weights kept as NumPy arrays.

    A child names its arrays in `weight_shapes` and gives the logits in `logits`; it has the parameters of
    `MlpHead`. Where a class has fewer than four samples there is no split and it trains for `epochs`.
    """

    finite: ClassVar[bool | str] = True  # "allow-nan" where a missing value has a meaning
    hidden: int
    dropout: float
    decay: float
    rate: float
    epochs: int
    patience: int
    random_state: Any
    device: str

    def weight_shapes(self, features: int, classes: int) -> Shapes:
        """Shape of each learned array, by its name in `weights_`."""
        raise NotImplementedError

    def logits(self, weights: Weights, inputs: Tensor, kept: Tensor | float = 1.0) -> Tensor:
        """Logits (samples, classes) of inputs (samples, features); `kept` scales the hidden units."""
        raise NotImplementedError

    def fit(self, X: Any, y: Any) -> Self:
        X, y = validate_data(self, X, y, dtype=np.float32, ensure_all_finite=self.finite)
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
            logits = self.logits(weights, inputs[train], keep.to(inputs.device) / (1 - self.dropout))
            loss = torch.nn.functional.cross_entropy(logits, targets[train])
            optimizer.zero_grad()
            torch.autograd.backward(loss)
            optimizer.step()
            if stop is None:
                continue
            with torch.no_grad():
                judged = torch.nn.functional.cross_entropy(self.logits(weights, inputs[stop]), targets[stop])
            waited += 1
            if float(judged) < best_loss:
                best, best_loss, waited = _copy(weights), float(judged), 0
            if waited >= self.patience:
                break
        return best if stop is not None else _copy(weights)

    def predict_proba(self, X: Any) -> NDArray[np.float64]:
        check_is_fitted(self)
        X = validate_data(self, X, dtype=np.float64, reset=False, ensure_all_finite=self.finite)
        weights = {name: torch.from_numpy(weight).double() for name, weight in self.weights_.items()}
        result: NDArray[np.float64] = torch.softmax(self.logits(weights, torch.from_numpy(X)), dim=1).numpy()
        return result

    def predict(self, X: Any) -> NDArray[Any]:
        best = self.predict_proba(X).argmax(1)
        result: NDArray[Any] = self.classes_[best]
        return result


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
