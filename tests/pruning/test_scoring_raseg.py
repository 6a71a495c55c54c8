"""The criteria on RA-Seg: 3D, ConvLSTM, PReLU, InstanceNorm, two inputs."""

import pytest
import torch
from pruning_networks import scores
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits

from radiogen.networks.raseg import RASeg, RASegSettings, build_raseg
from radiogen.pruning.layers import bypassed, layer_table
from radiogen.pruning.paths import find_paths
from radiogen.pruning.settings import Batch, CriterionSettings
from radiogen.pruning.weight_masks import apply_weight_masks, sparsity_of, weight_masks


def cross_entropy(model: nn.Module, batch: Batch) -> Tensor:
    image, prior, target = batch
    return binary_cross_entropy_with_logits(model(image, prior), target)


def small_raseg(both_ways: bool = False) -> RASeg:
    settings = RASegSettings(
        encoder_widths=(4, 6, 8, 10),
        recurrent_widths=(8, 6),
        decoder_widths=(8, 6, 4),
        both_ways=both_ways,
    )
    return build_raseg(settings, seed=0).double()


def patches() -> list[Batch]:
    rng = torch.Generator().manual_seed(0)
    image = torch.rand(2, 1, 32, 32, 32, generator=rng, dtype=torch.float64)
    prior, target = torch.zeros_like(image), torch.zeros_like(image)
    prior[..., 4:24, 6:28, 7:22] = 1
    target[..., 8:20, 10:24, 12:20] = 1
    return list(zip(image.split(1), prior.split(1), target.split(1), strict=True))


@pytest.mark.parametrize("both_ways", [False, True])
@pytest.mark.parametrize("criterion", ["fts", "snip", "magnitude", "synflow", "grasp", "fbss", "hts"])
def test_every_layer_but_the_output_is_scored(criterion: str, both_ways: bool) -> None:
    model = small_raseg(both_ways)
    settings = CriterionSettings(criterion=criterion, rounds=5 if criterion == "synflow" else None)
    found = scores(model, patches(), cross_entropy, settings, exclude=model.output_layers)
    convolutions = {
        f"{name}.weight"
        for name, module in model.named_modules()
        if isinstance(module, nn.Conv2d | nn.Conv3d | nn.ConvTranspose3d)
    }
    assert set(found) == convolutions - {"decoder1.weight"}
    assert all(bool((score != 0).any()) for score in found.values())
    assert sparsity_of(weight_masks(found, 0.9)) == pytest.approx(0.9, abs=1e-4)


def test_grasp_agrees_with_differences_of_the_gradient() -> None:
    model, batch = small_raseg().eval(), patches()[0]
    parameters = list(model.parameters())

    def gradient() -> list[Tensor]:
        return list(torch.autograd.grad(cross_entropy(model, batch), parameters))

    def move(step: float) -> None:
        with torch.no_grad():
            for p, g in zip(parameters, along, strict=True):
                p.add_(g, alpha=step)

    settings = CriterionSettings(criterion="grasp", temperature=1.0)
    found = scores(model, [batch], cross_entropy, settings, exclude=model.output_layers)
    along, step = gradient(), 1e-5
    move(step)
    ahead = gradient()
    move(-2 * step)
    behind = gradient()
    move(step)
    for (name, p), a, b in zip(model.named_parameters(), ahead, behind, strict=True):
        if name in found:
            expected = p.detach() * (a - b) / (2 * step)
            torch.testing.assert_close(
                found[name], expected, rtol=1e-4, atol=1e-4 * float(expected.abs().max())
            )


def test_a_recurrence_that_is_emptied_is_bypassed_by_the_skips() -> None:
    model, batches = small_raseg(), patches()
    found = scores(model, batches, cross_entropy, exclude=model.output_layers)
    masks = weight_masks(found, 0.5, "layer")
    assert not find_paths(model, masks, batches, cross_entropy).cut
    emptied = {name: torch.zeros_like(m) if "recurrence" in name else m for name, m in masks.items()}
    paths = find_paths(model, emptied, batches, cross_entropy)
    assert paths.is_open and paths.cut == {name for name in masks if "recurrence" in name}
    table = layer_table(model, emptied, paths.cut)
    assert bypassed(table) == "recurrence is bypassed: no path leads through it, paths round it remain"


def test_without_attentions_the_logits_do_not_depend_on_the_prior() -> None:
    model, batches = small_raseg(), patches()
    found = scores(model, batches, cross_entropy, exclude=model.output_layers)
    masks = {
        name: torch.zeros_like(m) if "attentions" in name else m
        for name, m in weight_masks(found, 0.5, "layer").items()
    }
    paths = find_paths(model, masks, batches, cross_entropy)
    assert paths.is_open and paths.lost_inputs == ("prior",)
    apply_weight_masks(model, masks)
    image, prior, _ = batches[0]
    with torch.no_grad():
        assert torch.equal(model.eval()(image, prior), model(image, 1 - prior))
