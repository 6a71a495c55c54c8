"""Spread mini-batches over processes that share the weights of the network."""

import itertools
import signal
from collections.abc import Iterable, Iterator, Mapping
from multiprocessing.connection import Connection
from types import TracebackType
from typing import Any, Self

import torch
import torch.multiprocessing as mp
from torch import nn

from radiogen.errors import PruningError
from radiogen.pruning.engine_choice import ENGINES, Plan
from radiogen.pruning.moments import MomentSums
from radiogen.pruning.settings import Batch, Loss
from radiogen.runtime import keep_large_blocks

AHEAD = 2  # groups of mini-batches that a process is given before it has finished the first


class Workers:
    """Processes that part the mini-batches evenly; with one job, the work is done where it is asked for.

    Who gets what does not depend on which is faster, and the sums come back in the order of the processes:
    the same number of jobs gives the same sums to the last bit. Another number adds in another order, which
    changes the last digits. Processes start while the engine is still chosen, and end with the
    context.
    """

    def __init__(self, model: nn.Module, loss: Loss, weights: Mapping[str, nn.Parameter], jobs: int) -> None:
        self._told = (model, dict(weights), loss)
        self._processes: list[_Process] = []
        if jobs == 1:
            return
        if any(weight.device.type != "cpu" for weight in weights.values()):
            raise PruningError("--jobs", "parts the processors of the CPU", "take --jobs 1, or torchrun")
        threads = max(1, torch.get_num_threads() // jobs)
        try:
            while len(self._processes) < jobs:
                self._processes.append(_Process(threads, *self._told))
        except BaseException:
            self.end()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.end()

    def end(self) -> None:
        """End the processes."""
        for process in self._processes:
            process.end()
        self._processes.clear()

    def run(self, plan: Plan, sums: MomentSums, batches: Iterable[Batch]) -> None:
        """Add the gradients of all mini-batches to the sums.

        Raises:
            PruningError: A process died, or the engine failed in it.
        """
        if not self._processes:
            model, weights, loss = self._told
            for chunk in chunks(batches, plan.chunk):
                plan.engine(sums, model, chunk, loss, weights)
            return
        jobs = len(self._processes)
        for together in chunks(batches, plan.chunk * jobs):
            size = -(-len(together) // jobs)
            for process, chunk in zip(self._processes, chunks(together, size), strict=False):
                process.give(plan.name, chunk)
        for process in self._processes:
            process.add_to(sums)


class _Process:
    """One process, and the pipe to it."""

    def __init__(self, threads: int, *told: Any) -> None:
        context = mp.get_context("spawn")
        self._pipe, theirs = context.Pipe()
        self._waiting_for = 0
        self._process = context.Process(target=_serve, args=(theirs, threads, *told), daemon=True)
        try:
            self._process.start()
        except (AttributeError, TypeError, ValueError, RuntimeError, OSError) as error:
            raise _not_sent(error) from error
        except Exception as error:
            if type(error).__name__ != "PicklingError":
                raise
            raise _not_sent(error) from error
        theirs.close()

    def give(self, engine: str, chunk: list[Batch]) -> None:
        while self._waiting_for >= AHEAD:
            self._hear()
        copies = [tuple(tensor.detach().clone() for tensor in batch) for batch in chunk]
        self._say((engine, copies))  # what is sent holds a file open for as long as it is kept here
        self._waiting_for += 1

    def add_to(self, sums: MomentSums) -> None:
        while self._waiting_for:
            self._hear()
        self._say(("sums", []))
        sums.samples, sums.batches = (
            own + more for own, more in zip((sums.samples, sums.batches), self._answer(), strict=True)
        )
        for values in (sums.total, sums.squares):
            for value in values.values():
                value.add_(torch.from_numpy(self._answer()))

    def end(self) -> None:
        self._pipe.close()
        self._process.terminate()
        self._process.join()

    def _hear(self) -> None:
        self._answer()
        self._waiting_for -= 1

    def _say(self, message: Any) -> None:
        try:
            self._pipe.send(message)
        except OSError as error:
            raise _died() from error

    def _answer(self) -> Any:
        try:
            answer = self._pipe.recv()
        except (EOFError, OSError) as error:
            raise _died() from error
        if isinstance(answer, Exception):
            raise answer
        return answer


def _serve(
    pipe: Connection, threads: int, model: nn.Module, weights: dict[str, nn.Parameter], loss: Loss
) -> None:
    """What a process does: measure what it is given, and hand over the sums when it is asked."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the first process, which ends this one
    torch.set_num_threads(threads)
    keep_large_blocks()
    sums = MomentSums(weights)
    try:
        while True:
            what, chunk = pipe.recv()
            if what == "sums":
                _hand_over(sums, pipe)
                continue
            try:
                ENGINES[what](sums, model, chunk, loss, weights)
            except Exception as error:
                pipe.send(error if isinstance(error, PruningError) else _failed(error))
            else:
                pipe.send(None)
    except (EOFError, OSError):
        return


def _hand_over(sums: MomentSums, pipe: Connection) -> None:
    pipe.send((sums.samples, sums.batches))
    for values in (sums.total, sums.squares):
        for value in values.values():
            pipe.send(value.numpy())
    sums.clear()


def _died() -> PruningError:
    return PruningError(
        "--jobs", "a process that measured gradients died, of memory perhaps", "take fewer jobs"
    )


def _failed(error: Exception) -> PruningError:
    return PruningError("--jobs", f"a process failed: {type(error).__name__}: {error}", "take --jobs 1")


def _not_sent(error: Exception) -> PruningError:
    wrong = f"the network or the loss cannot be sent to another process: {error}"
    return PruningError("--jobs", wrong, "define them at the top of a module, or take --jobs 1")


def chunks(batches: Iterable[Batch], size: int) -> Iterator[list[Batch]]:
    """Lists of at most `size` neighbouring mini-batches of the same shapes."""
    for _, same in itertools.groupby(batches, key=lambda batch: tuple((t.shape, t.dtype) for t in batch)):
        while chunk := list(itertools.islice(same, size)):
            yield chunk
