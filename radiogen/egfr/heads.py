"""Small torch networks as scikit-learn classifiers: a perceptron, and attention over a bag of lesions."""

import math
from dataclasses import dataclass
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


# eq and repr stay those of scikit-learn, which compares estimators by identity
@dataclass(eq=False, repr=False)
class TorchHead(ClassifierMixin, BaseEstimator):  # type: ignore[misc]
    """Base of the torch classifiers: AdamW on all samples at once, early stopping on an inner split.

    The learned weights are kept as NumPy arrays; a child names them in `weight_shapes` and computes the
    logits in `logits`. Where a class has fewer than four samples there is no split: it trains for `epochs`.
    """

    hidden: int = 16  # width of the hidden layer
    dropout: float = 0.2  # share of the hidden units left out at a step
    decay: float = 0.01  # weight decay
    rate: float = 0.01  # learning rate
    epochs: int = 200  # largest number of steps
    patience: int = 20  # steps without a better loss on the inner split before training stops
    random_state: Any = None  # seed of start weights, dropout and split; no global state is touched
    device: str = "cpu"  # as `radiogen.runtime.pick_device` takes it
    finite: ClassVar[bool | str] = True  # "allow-nan" where a missing value has a meaning

    def weight_shapes(self, features: int, classes: int) -> Shapes:
        """Return the shape of each learned array, by its name in `weights_`."""
        raise NotImplementedError

    def logits(self, weights: Weights, inputs: Tensor, kept: Tensor | float = 1.0) -> Tensor:
        """Return logits (samples, classes) of inputs (samples, features); `kept` scales the hidden units."""
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
        self, inputs: Tensor, targets: Tensor, train: Tensor, stop: Tensor | None, rng: torch.Generator
    ) -> Weights:
        """Return the weights with the lowest loss on the rows `stop`, or the last ones without such rows."""
        shapes = self.weight_shapes(inputs.shape[1], len(self.classes_))
        weights = _initial_weights(shapes, rng, inputs.device)
        optimizer = torch.optim.AdamW(weights.values(), lr=self.rate, weight_decay=self.decay)
        best, best_loss, waited = _copy(weights), float("inf"), 0
        for epoch in range(1, self.epochs + 1):
            self.n_iter_ = epoch
            # one mask of hidden units a sample, as dropout draws it, but from our own generator
            keep = torch.rand(len(train), self.hidden, generator=rng) >= self.dropout
            logits = self.logits(weights, inputs[train], keep.to(inputs.device) / (1 - self.dropout))
            loss = torch.nn.functional.cross_entropy(logits, targets[train])
            optimizer.zero_grad()
            torch.autograd.backward(loss)
            optimizer.step()
            if stop is None:
                continue
            with torch.no_grad():
                stop_loss = float(
                    torch.nn.functional.cross_entropy(self.logits(weights, inputs[stop]), targets[stop])
                )
            waited += 1
            if stop_loss < best_loss:
                best, best_loss, waited = _copy(weights), stop_loss, 0
            if waited >= self.patience:
                break
        return best if stop is not None else _copy(weights)

    def predict_proba(self, X: Any) -> NDArray[np.float64]:
        check_is_fitted(self)
        X = validate_data(self, X, dtype=np.float64, reset=False, ensure_all_finite=self.finite)
        # in single precision a row's probability would change with the number of rows
        weights = {name: torch.from_numpy(weight).double() for name, weight in self.weights_.items()}
        result: NDArray[np.float64] = torch.softmax(self.logits(weights, torch.from_numpy(X)), dim=1).numpy()
        return result

    def predict(self, X: Any) -> NDArray[Any]:
        most_likely = self.predict_proba(X).argmax(1)
        result: NDArray[Any] = self.classes_[most_likely]
        return result


def _initial_weights(shapes: Shapes, rng: torch.Generator, device: torch.device) -> Weights:
    """Draw matrices as He et al. 2015 do for ReLU; biases start at 0."""
    weights = {}
    for name, shape in shapes.items():
        is_bias = len(shape) == 1
        scale = math.sqrt(2 / shape[0])
        weights[name] = torch.zeros(shape) if is_bias else torch.randn(shape, generator=rng).mul(scale)
    return {name: weight.to(device).requires_grad_() for name, weight in weights.items()}


def _copy(weights: Weights) -> Weights:
    return {name: weight.detach().clone() for name, weight in weights.items()}


def _inner_split(labels: NDArray[Any], seed: int) -> tuple[Tensor, Tensor | None]:
    """Return the rows to train on, and those that decide when to stop (None with too few samples)."""
    rows = np.arange(len(labels))
    if np.bincount(labels).min() < 4:
        return torch.from_numpy(rows), None
    train, stop = train_test_split(rows, test_size=0.25, stratify=labels, random_state=seed % 2**32)
    return torch.from_numpy(train), torch.from_numpy(stop)


class MlpHead(TorchHead):
    """A perceptron with one hidden layer and dropout; its parameters are those of `TorchHead`."""

    def weight_shapes(self, features: int, classes: int) -> Shapes:
        return {
            "hidden.weight": (features, self.hidden),
            "hidden.bias": (self.hidden,),
            "out.weight": (self.hidden, classes),
            "out.bias": (classes,),
        }

    def logits(self, weights: Weights, inputs: Tensor, kept: Tensor | float = 1.0) -> Tensor:
        hidden = torch.relu(inputs @ weights["hidden.weight"] + weights["hidden.bias"]) * kept
        logits: Tensor = hidden @ weights["out.weight"] + weights["out.bias"]
        return logits


@dataclass(eq=False, repr=False)
class GatedAttentionHead(TorchHead):
    """Gated attention pooling of the instances of a bag (Ilse et al., ICML 2018, equation 9).

    A row holds first `context` numbers of the patient, then `instances` times the numbers of one instance
    (a lesion or a patch). Each instance gets a hidden layer h and a share a, the softmax of
    w (tanh(V h) * sigmoid(U h)); the bag is the sum of a h. An instance whose numbers are all missing is
    not there; a bag without instances is 0. A single missing number counts as 0, which is the mean.
    """

    instances: int = 1  # number of places for instances in a row
    context: int = 0  # numbers of the patient that stand before the instances and bypass the attention
    attention: int = 8  # width of the attention
    finite: ClassVar[bool | str] = "allow-nan"

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.allow_nan = True
        return tags

    def weight_shapes(self, features: int, classes: int) -> Shapes:
        width, rest = divmod(features - self.context, self.instances)
        if rest or width < 1:
            raise ValueError(
                f"{features} columns are not {self.context} of the patient and {self.instances} instances"
            )
        return {
            "hidden.weight": (width, self.hidden),
            "hidden.bias": (self.hidden,),
            "tanh.weight": (self.hidden, self.attention),
            "gate.weight": (self.hidden, self.attention),
            "share.weight": (self.attention, 1),
            "out.weight": (self.hidden + self.context, classes),
            "out.bias": (classes,),
        }

    def logits(self, weights: Weights, inputs: Tensor, kept: Tensor | float = 1.0) -> Tensor:
        hidden, shares = self._attend(weights, inputs)
        pooled = (shares * hidden).sum(dim=1) * kept  # (samples, hidden)
        patient = inputs[:, : self.context].nan_to_num(nan=0.0)
        logits: Tensor = torch.cat([pooled, patient], dim=1) @ weights["out.weight"] + weights["out.bias"]
        return logits

    def _attend(self, weights: Weights, inputs: Tensor) -> tuple[Tensor, Tensor]:
        """Return hidden units (samples, instances, hidden) and their shares (samples, instances, 1)."""
        bags = inputs[:, self.context :].reshape(len(inputs), self.instances, -1)
        is_there = ~bags.isnan().all(dim=2, keepdim=True)
        hidden = torch.relu(bags.nan_to_num(nan=0.0) @ weights["hidden.weight"] + weights["hidden.bias"])
        gated = torch.tanh(hidden @ weights["tanh.weight"]) * torch.sigmoid(hidden @ weights["gate.weight"])
        scores = (gated @ weights["share.weight"]).masked_fill(~is_there, -torch.inf)
        shares = torch.softmax(scores, dim=1).nan_to_num(nan=0.0)  # a bag without instances has no shares
        return hidden, shares
