"""Small torch networks as scikit-learn classifiers: a hidden layer, and attention over a bag."""

from typing import Any, ClassVar

import torch
from torch import Tensor

from radiogen.egfr.torch_head import Shapes, TorchHead, Weights


class MlpHead(TorchHead):
    """One hidden layer with dropout.

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


class GatedAttentionHead(TorchHead):
    """Attention-based pooling of a bag of instances with a gate (Ilse et al., ICML 2018, equation 9).

    A row holds first `context` numbers of the patient, then `instances` times the numbers of one instance
    (a lesion, a patch). Each instance gets a hidden layer h and a share a, softmax of
    w (tanh(V h) * sigmoid(U h)); the bag is the sum of a h. An instance whose numbers are all missing is
    not there; a bag without instances is 0. A single missing number counts as 0, the mean.

    Args:
        instances: Places for instances in a row.
        context: Numbers of the patient that stand before them and pass the attention by.
        hidden: Width of the hidden layer.
        attention: Width of the attention.
        dropout: Share of the pooled hidden units left out at a step.
        decay: Weight decay.
        rate: Learning rate.
        epochs: Most steps.
        patience: Steps without a better loss on the inner split before it stops.
        random_state: Seed of start weights, dropout and split; no global state is touched.
        device: As `radiogen.runtime.pick_device` takes it.
    """

    finite: ClassVar[bool | str] = "allow-nan"

    def __init__(
        self,
        instances: int = 1,
        context: int = 0,
        hidden: int = 16,
        attention: int = 8,
        dropout: float = 0.2,
        decay: float = 0.01,
        rate: float = 0.01,
        epochs: int = 200,
        patience: int = 20,
        random_state: Any = None,
        device: str = "cpu",
    ) -> None:
        self.instances = instances
        self.context = context
        self.hidden = hidden
        self.attention = attention
        self.dropout = dropout
        self.decay = decay
        self.rate = rate
        self.epochs = epochs
        self.patience = patience
        self.random_state = random_state
        self.device = device

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
        """Hidden units (samples, instances, hidden) and shares (samples, instances, 1) that sum to 1."""
        bags = inputs[:, self.context :].reshape(len(inputs), self.instances, -1)
        there = ~bags.isnan().all(dim=2, keepdim=True)
        hidden = torch.relu(bags.nan_to_num(nan=0.0) @ weights["hidden.weight"] + weights["hidden.bias"])
        gated = torch.tanh(hidden @ weights["tanh.weight"]) * torch.sigmoid(hidden @ weights["gate.weight"])
        pull = (gated @ weights["share.weight"]).masked_fill(~there, -torch.inf)
        shares = torch.softmax(pull, dim=1).nan_to_num(nan=0.0)  # a bag without instances has no shares
        return hidden, shares
