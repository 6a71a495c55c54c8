"""Spread mini-batches over threads, each with a replica of the network that shares its weights."""

import copy
import itertools
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import Executor, ThreadPoolExecutor

import torch
from torch import nn

from radiogen.pruning.engine_choice import Plan
from radiogen.pruning.moments import MomentSums
from radiogen.pruning.signatures import Batch, Loss

Replica = tuple[nn.Module, Mapping[str, nn.Parameter]]


class Workers:
    """Threads that share the weights of a network and part the mini-batches evenly.

    Who gets what does not depend on which is faster, so the sums depend on the number of workers only, in the
    last digits. Torch works outside Python's lock, and threads need neither copies of the weights nor a loss
    that can be pickled.
    """

    def __init__(
        self, model: nn.Module, loss: Loss, weights: Mapping[str, nn.Parameter], plan: Plan, jobs: int
    ) -> None:
        self._replicas = [(model, weights), *(_replica(model, weights) for _ in range(jobs - 1))]
        self._loss, self._plan = loss, plan

    def run(self, sums: MomentSums, batches: Iterable[Batch]) -> None:
        """Add the gradients of all mini-batches to the sums."""
        if len(self._replicas) == 1:
            for chunk in chunks(batches, self._plan.chunk):
                self._work(sums, self._replicas[0], chunk)
            return
        parts = [sums, *(MomentSums(weights) for _, weights in self._replicas[1:])]
        threads = torch.get_num_threads()
        try:
            with ThreadPoolExecutor(
                len(parts), initializer=torch.set_num_threads, initargs=(max(1, threads // len(parts)),)
            ) as pool:
                for together in chunks(batches, self._plan.chunk * len(parts)):
                    self._run_together(pool, parts, together)
        finally:
            torch.set_num_threads(threads)
        for part in parts[1:]:
            sums.merge(part)

    def _run_together(self, pool: Executor, parts: list[MomentSums], together: list[Batch]) -> None:
        size = -(-len(together) // len(parts))
        running = [
            pool.submit(self._work, part, replica, chunk)
            for part, replica, chunk in zip(parts, self._replicas, chunks(together, size), strict=False)
        ]
        for task in running:
            task.result()

    def _work(self, sums: MomentSums, replica: Replica, chunk: list[Batch]) -> None:
        model, weights = replica
        self._plan.engine(sums, model, chunk, self._loss, weights)


def chunks(batches: Iterable[Batch], size: int) -> Iterator[list[Batch]]:
    """Lists of at most `size` neighbouring mini-batches of the same shapes."""
    for _, same in itertools.groupby(batches, key=lambda batch: tuple((t.shape, t.dtype) for t in batch)):
        while chunk := list(itertools.islice(same, size)):
            yield chunk


def _replica(model: nn.Module, weights: Mapping[str, nn.Parameter]) -> Replica:
    """A copy of the modules whose parameters and buffers lie in the network's memory."""
    own = {id(p): nn.Parameter(p.detach(), p.requires_grad) for p in model.parameters()}
    buffers = {id(buffer): buffer for buffer in model.buffers()}
    replica = copy.deepcopy(model, {**own, **buffers})
    return replica, {name: own[id(weight)] for name, weight in weights.items()}
