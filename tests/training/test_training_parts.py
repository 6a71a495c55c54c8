"""One large batch, the same batch in parts, and the same batch over two processes teach the same."""

import json

import pytest
import torch
from monai.losses import DiceCELoss
from side_by_side import run_two
from torch.nn import functional
from training.tiny_run import TINY, tiny_settings

from radiogen.io.tensors import load_tensors
from radiogen.networks.raseg import build_raseg
from radiogen.pruning.settings import CriterionSettings
from radiogen.pruning.weight_masks import load_weight_masks
from radiogen.training.batches import MiniBatch
from radiogen.training.prune import PruneOptions, prune
from radiogen.training.settings import TrainOptions
from radiogen.training.step import TrainingStep, batch_dice_ce, make_optimizer, patch_dice_ce
from radiogen.training.train import train

CPU = torch.device("cpu")


def four_patches():
    rng = torch.Generator().manual_seed(0)
    image = torch.rand(4, 2, 32, 32, 32, generator=rng)
    prior = torch.ones(4, 1, 32, 32, 32)
    target = torch.zeros(4, 1, 32, 32, 32)
    for patch, edge in enumerate((0, 4, 9, 16)):  # the first holds no lesion
        target[patch, :, :edge, 8 : 8 + edge, :edge] = 1
    return image, prior, target


def take_steps(parts, *overrides, steps=1):
    """Losses, gradients and weights after steps in float64 on four patches, cut in parts."""
    settings = tiny_settings("network.dropout=0.3", *overrides)
    network = build_raseg(settings.network, 0).double()
    optimizer = make_optimizer(network, settings.training)
    step = TrainingStep(network, optimizer, settings.training, 0, CPU)
    network.train()
    size = 4 // parts
    cut = [slice(start, start + size) for start in range(0, 4, size)]
    patches = [tensor.double() for tensor in four_patches()]
    losses = []
    for number in range(steps):
        draws = [(number, place) for place in range(4)]
        batches = [MiniBatch(tuple(tensor[part] for tensor in patches), draws[part]) for part in cut]
        losses.append(step(batches, 0, number))
    gradients = {name: p.grad for name, p in network.named_parameters() if p.grad is not None}
    return losses, gradients, network.state_dict()


def test_the_loss_that_scores_is_that_of_monai():
    rng = torch.Generator().manual_seed(1)
    logits = torch.randn(3, 1, 8, 9, 10, generator=rng, requires_grad=True)
    target = (torch.rand(3, 1, 8, 9, 10, generator=rng) > 0.8).float()
    ours, theirs = batch_dice_ce(logits, target), DiceCELoss(sigmoid=True, batch=True)(logits, target)
    torch.testing.assert_close(ours, theirs, rtol=1e-6, atol=1e-6)
    for soft in (target, target * 0.3):
        pair = [
            torch.autograd.grad(loss(logits, soft), logits)[0]
            for loss in (batch_dice_ce, DiceCELoss(sigmoid=True, batch=True))
        ]
        torch.testing.assert_close(*pair, rtol=1e-4, atol=1e-8)


def test_dice_of_patches_counts_each_lesion_alike_and_no_patch_without_one():
    target = four_patches()[2]
    logits = 6 * target - 3  # nearly right
    of_patches = [batch_dice_ce(logits[i : i + 1], target[i : i + 1]) for i in range(1, 4)]
    cross_entropy = functional.binary_cross_entropy_with_logits(logits, target)
    of_lesions = functional.binary_cross_entropy_with_logits(logits[1:], target[1:])
    by_hand = 3 / 4 * (torch.stack(of_patches).mean() - of_lesions) + cross_entropy
    torch.testing.assert_close(patch_dice_ce(logits, target), by_hand)


@pytest.mark.parametrize("parts", [2, 4])
def test_a_batch_in_parts_takes_the_steps_of_the_whole(parts):
    # In float64: Adam blows rounding up to whole steps where a gradient is next to nothing.
    whole, cut = take_steps(1, steps=3), take_steps(parts, steps=3)
    assert cut[0] == pytest.approx(whole[0], abs=1e-6)  # the losses themselves are told in float32
    for name, gradient in whole[1].items():
        torch.testing.assert_close(cut[1][name], gradient, rtol=1e-8, atol=1e-12)
    for name, weight in whole[2].items():
        torch.testing.assert_close(cut[2][name], weight, rtol=0, atol=1e-10)


def test_dice_of_a_batch_is_no_mean_over_its_parts_and_dice_of_patches_is():
    target = four_patches()[2]
    logits = 6 * target - 3  # nearly right
    halves = [patch_dice_ce(logits[i : i + 2], target[i : i + 2]) for i in (0, 2)]
    torch.testing.assert_close(torch.stack(halves).mean(), patch_dice_ce(logits, target))
    apart = torch.stack([batch_dice_ce(logits[i : i + 1], target[i : i + 1]) for i in range(4)]).mean()
    assert abs(float(apart - batch_dice_ce(logits, target))) > 0.01


def test_activations_computed_twice_give_the_same_gradients():
    kept, twice = take_steps(1), take_steps(1, "training.checkpoint_activations=true")
    assert twice[0] == kept[0]
    for name, gradient in kept[1].items():
        assert torch.equal(twice[1][name], gradient)


def test_batch_norm_counts_every_mini_batch_once():
    norms = ("network.gate_norm=batch",)
    for more in ((), ("training.checkpoint_activations=true",)):
        state = take_steps(2, *norms, *more)[2]
        counted = [value for name, value in state.items() if name.endswith("num_batches_tracked")]
        assert counted and all(int(count) == 2 for count in counted)


def test_two_processes_learn_what_one_learns(made_cases, tmp_path):
    scoring = CriterionSettings(sparsity=0.5, scope="layer")
    choice = PruneOptions(preset="small", samples=4, criterion=scoring)
    masked = (
        "training.ema_decay=0.9",
        "training.patches_per_case=4",
        "training.epochs=2",
        "training.optimizer=sgd",  # AdamW blows up the rounding of weights that hardly have a gradient
        "training.learning_rate=0.05",
    )
    prune(made_cases, tmp_path / "pruned", tiny_settings(*masked), choice, CPU)
    sets = [word for pair in (*TINY, *masked) for word in ("--set", pair)]
    words = ["train", str(made_cases), "--preset", "small", "--pruned", "pruned", "--folds", "2", *sets]
    one_each = ["--set", "training.batch_size=1", "--set", "training.accumulate=2"]
    program = ["-m", "radiogen.cli.main", *words, *one_each, "--device", "cpu", "-o", "two"]
    first, second = run_two(program, tmp_path)
    assert first.stdout.splitlines()[-1] == "two" and not second.stdout
    options = TrainOptions(preset="small", pruned=tmp_path / "pruned", folds=2)
    train(made_cases, tmp_path / "one", tiny_settings(*masked, "training.batch_size=4"), options, CPU)
    one, two = (json.loads((tmp_path / name / "metrics.json").read_text()) for name in ("one", "two"))
    assert one["fingerprint"] == two["fingerprint"]  # so either could go on where the other was killed
    for rows in ("epochs", "validation"):
        assert len(one[rows]) == len(two[rows]) > 1
        for ours, theirs in zip(one[rows], two[rows], strict=True):
            assert theirs == pytest.approx(ours, abs=1e-5)
    masks, _ = load_weight_masks(tmp_path / "pruned" / "weight_masks.safetensors")
    alone, together = (load_tensors(tmp_path / name / "model.safetensors") for name in ("one", "two"))
    for name, weight in alone.items():
        torch.testing.assert_close(together[name], weight, rtol=0, atol=1e-5)
    assert all(not together[name][~mask].any() for name, mask in masks.items())
    lines = [(tmp_path / name / "metrics.jsonl").read_text().count("\n") for name in ("one", "two")]
    assert lines[0] == lines[1]
