"""Products with the Hessian of the mean loss: GraSP, and Hutchinson's estimate of the diagonal."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map_only

from radiogen.distributed import all_reduce, all_reduce_counts, share_of_rank
from radiogen.errors import PruningError
from radiogen.pruning.measuring import measure_moments
from radiogen.pruning.settings import (
    GRASP_TEMPERATURE,
    Batch,
    Loss,
    Scores,
    ScoringTask,
    loss_of,
    read_batches,
    scoring_state,
)


def grasp_scores(task: ScoringTask) -> Scores:
    """Return w * (H g): how much removing a weight would lessen the gradient flow (Wang et al. 2020).

    H and g belong to the mean loss over all mini-batches, with the network's output divided by a temperature,
    and run over all parameters that can be trained. In reference mode the published FTS code: the opposite
    sign, temperature 1, divided by the absolute value of the total over all parameters.
    """
    reference = task.settings.reference
    temperature = task.settings.temperature or (1.0 if reference else GRASP_TEMPERATURE)
    # H couples all parameters: the gradient flow is that of the whole network, also where it is not pruned.
    trained = {name: p for name, p in task.model.named_parameters() if p.requires_grad} | task.weights
    with _tempered(task.model, temperature):
        moments = measure_moments(task.model, task.batches, task.loss, trained, task.settings.moments)
        total = _zeros(trained)
        count = 0
        for _, product in _hessian_products(task, trained, [lambda: moments.gradient]):
            for name, value in product.items():
                total[name].add_(value)
            count += 1
        product = _means(total, count)
    scores = {name: p.detach() * product[name] for name, p in trained.items()}
    if reference:
        total_score = torch.stack([score.sum() for score in scores.values()]).sum().abs()
        scores = {name: -score / total_score for name, score in scores.items()}
    return {name: scores[name] for name in task.weights}


def hutchinson_diagonal(task: ScoringTask) -> dict[str, Tensor]:
    """Estimate the diagonal of the Hessian: the mean of v * (H v) over Rademacher vectors v (Hutchinson).

    Every mini-batch gets the same vectors, so their order does not matter.
    """
    # Seeds in place of the vectors: each vector is as large as the weights.
    seeds = [
        int(torch.randint(2**62, (), generator=task.rng, device=task.rng.device))
        for _ in range(task.settings.probes)
    ]
    vectors = [partial(_rademacher, task.weights, seed) for seed in seeds]
    total = _zeros(task.weights)
    count = 0
    for vector, product in _hessian_products(task, task.weights, vectors):
        for name, value in product.items():
            total[name].addcmul_(vector[name], value)
        count += 1
    return _means(total, count)


def _rademacher(weights: Mapping[str, nn.Parameter], seed: int) -> dict[str, Tensor]:
    rng = torch.Generator().manual_seed(seed)
    return {
        name: torch.randint(2, w.shape, generator=rng).to(w).mul_(2).sub_(1) for name, w in weights.items()
    }


def _zeros(weights: Mapping[str, nn.Parameter]) -> dict[str, Tensor]:
    return {name: torch.zeros_like(w, requires_grad=False) for name, w in weights.items()}


def _hessian_products(
    task: ScoringTask, weights: Mapping[str, nn.Parameter], vectors: Sequence[Callable[[], dict[str, Tensor]]]
) -> Iterator[tuple[dict[str, Tensor], dict[str, Tensor]]]:
    """Yield v and H v for each mini-batch of this rank and each vector v, H the Hessian of its loss."""
    with scoring_state(task.model, weights.values()):
        for batch in read_batches(share_of_rank(task.batches)):
            gradients = _differentiable_gradients(task.model, batch, task.loss, weights)
            for make_vector in vectors:
                vector = make_vector()
                yield vector, _vector_product(gradients, weights, vector)


def _means(total: dict[str, Tensor], count: int) -> dict[str, Tensor]:
    """Return the mean over all products of all ranks."""
    all_reduce(total.values())
    (products,) = all_reduce_counts(count, like=next(iter(total.values())))
    return {name: value.div_(products) for name, value in total.items()}


def _differentiable_gradients(
    model: nn.Module, batch: Batch, loss: Loss, weights: Mapping[str, nn.Parameter]
) -> dict[str, Tensor]:
    value = loss_of(model, batch, loss)
    if not value.requires_grad:
        return {}
    with _second_derivative_named():
        gradients = torch.autograd.grad(value, list(weights.values()), create_graph=True, allow_unused=True)
    return {name: g for name, g in zip(weights, gradients, strict=True) if g is not None}


def _vector_product(
    gradients: Mapping[str, Tensor], weights: Mapping[str, nn.Parameter], vector: Mapping[str, Tensor]
) -> dict[str, Tensor]:
    """Return H v by differentiating g . v once more; gradients that are constant add nothing."""
    curved = [name for name, g in gradients.items() if g.requires_grad]
    if not curved:
        return {}
    with _second_derivative_named():
        products = torch.autograd.grad(
            [gradients[name] for name in curved],
            list(weights.values()),
            [vector[name] for name in curved],
            retain_graph=True,
            allow_unused=True,
        )
    return {name: p for name, p in zip(weights, products, strict=True) if p is not None}


@contextmanager
def _second_derivative_named() -> Iterator[None]:
    """Say that it was the second derivative which failed; running out of memory is something else."""
    try:
        yield
    except torch.OutOfMemoryError:
        raise
    except RuntimeError as error:
        raise PruningError(
            "second derivative", f"cannot be taken of this network: {error}", "take a first-order criterion"
        ) from error


@contextmanager
def _tempered(model: nn.Module, temperature: float) -> Iterator[None]:
    """Divide what the network returns: Wang et al. soften an untrained network's predictions so."""

    def divide(_module: nn.Module, _inputs: Any, output: Any) -> Any:
        return tree_map_only(Tensor, lambda t: t / temperature, output)

    handle = model.register_forward_hook(divide)
    try:
        yield
    finally:
        handle.remove()
