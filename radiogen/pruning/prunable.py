"""Which weights may be pruned: those of convolutions and linear layers, by the type of the module."""

from collections.abc import Collection

from torch import nn

from radiogen.errors import PruningError

TRANSPOSED = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)
PRUNABLE_MODULES = (nn.Conv1d, nn.Conv2d, nn.Conv3d, *TRANSPOSED, nn.Linear)
PUBLISHED_NAMES_KEPT = ("bias", "linear", "bn")


def prunable(
    model: nn.Module, exclude: Collection[str] = (), published_names: bool = False
) -> dict[str, nn.Parameter]:
    """Return the prunable weights of a network, in the order of `named_parameters`.

    Args:
        model: Any network.
        exclude: Names of parameters or modules that are never pruned, such as the output layer; a module
            stands for everything inside it, a shared weight for all its names.
        published_names: Take the rule of the published FTS code instead of the module types: every parameter
            whose name holds none of `bias`, `linear`, `bn`. It prunes the BatchNorm of ResNet shortcuts.

    Raises:
        PruningError: A name in `exclude` is unknown, or nothing is left to prune.
    """
    excluded = _excluded_ids(model, exclude)
    if published_names:
        candidates = {
            id(weight)
            for name, weight in model.named_parameters()
            if not any(part in name for part in PUBLISHED_NAMES_KEPT)
        }
    else:
        candidates = {id(m.weight) for m in model.modules() if isinstance(m, PRUNABLE_MODULES)}
    weights = {
        name: weight
        for name, weight in model.named_parameters()
        if id(weight) in candidates and id(weight) not in excluded
    }
    if not weights:
        raise PruningError(
            type(model).__name__,
            "has no prunable weights",
            "exclude less, or take a network with convolutions",
        )
    return weights


def _excluded_ids(model: nn.Module, exclude: Collection[str]) -> set[int]:
    # Identities, not names: a weight that two modules share is excluded under either of its names.
    parameters = dict(model.named_parameters(remove_duplicate=False))
    identities: set[int] = set()
    for excluded in exclude:
        matching = [w for name, w in parameters.items() if f"{name}.".startswith(f"{excluded}.")]
        if not matching:
            raise PruningError(
                f"exclude {excluded}",
                "names no parameter or module",
                f"the parameters are {', '.join(parameters)}",
            )
        identities.update(id(weight) for weight in matching)
    return identities
