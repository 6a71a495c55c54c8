"""`radiogen.prune(model, batches, loss)` prunes networks that radiogen does not know, and holds the zeros."""

from collections.abc import Callable, Iterator

import pytest
import torch
from pruning_networks import images
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits, cross_entropy
from torch.utils.data import DataLoader, TensorDataset

import radiogen
from radiogen.errors import PruningError
from radiogen.networks.classifiers import build_classifier
from radiogen.pruning.choosing import OutputLoss
from radiogen.pruning.weight_masks import load_weight_masks, sparsity_of


def monai_network(name: str) -> nn.Module:
    from monai.networks.nets import BasicUNet, DynUNet, SegResNet, UNet

    with torch.random.fork_rng():
        torch.manual_seed(0)
        if name == "UNet":
            return UNet(3, 1, 1, channels=(4, 8, 16), strides=(2, 2), num_res_units=1)
        if name == "SegResNet":
            return SegResNet(
                3, init_filters=8, in_channels=1, out_channels=1, blocks_down=(1, 1), blocks_up=(1,)
            )
        if name == "DynUNet":
            sizes = {"kernel_size": [3, 3, 3], "strides": [1, 2, 2], "upsample_kernel_size": [2, 2]}
            return DynUNet(3, 1, 1, filters=[4, 8, 16], deep_supervision=True, deep_supr_num=1, **sizes)
        return BasicUNet(3, 1, 1, features=(4, 4, 8, 8, 8, 4))


def volumes_loader() -> DataLoader[tuple[Tensor, ...]]:
    rng = torch.Generator().manual_seed(0)
    image = torch.rand(2, 1, 32, 16, 16, generator=rng)
    return DataLoader(TensorDataset(image, (image > 0.7).float()), batch_size=1)


def segmentation_loss(output: Tensor, target: Tensor) -> Tensor:
    if output.dim() == 6:  # DynUNet stacks its deep supervision in training
        output = output[:, 0]
    return binary_cross_entropy_with_logits(output, target)


def resnet() -> nn.Module:
    return build_classifier("resnet18", 3, 5, 0, width=4)


OUTPUTS = {  # layers that are left alone: they make the output, or it does not depend on them
    "UNet": {"model.2.1.conv.unit0.conv.weight"},
    "SegResNet": {"conv_final.2.conv.weight"},
    "DynUNet": {"output_block.conv.conv.weight", "deep_supervision_heads.0.conv.conv.weight"},
    "BasicUNet": {"final_conv.weight"},
    "ResNet": {"linear.weight"},
}
OPTIMISERS: list[Callable[[Iterator[nn.Parameter]], torch.optim.Optimizer]] = [
    lambda p: torch.optim.SGD(p, 0.05, momentum=0.9, weight_decay=0.1, nesterov=True),
    lambda p: torch.optim.AdamW(p, 0.01, weight_decay=0.1, amsgrad=True),
    lambda p: torch.optim.RMSprop(p, 0.01, momentum=0.9, centered=True),
]


@pytest.mark.parametrize("name", OUTPUTS)
def test_a_foreign_network_is_pruned_and_trains_with_its_zeros(name: str) -> None:
    loss: OutputLoss
    if name == "ResNet":
        model, loss = resnet(), cross_entropy
        batches = [(x.float(), y) for x, y in images(3, size=4)]
    else:
        model, loss, batches = monai_network(name), segmentation_loss, list(volumes_loader())
    convolutions = {
        f"{layer}.weight"
        for layer, module in model.named_modules()
        if isinstance(module, nn.Conv2d | nn.Conv3d | nn.ConvTranspose3d | nn.Linear)
    }
    choice = radiogen.prune(model, batches, loss, sparsity=0.9)
    parameters = dict(model.named_parameters())
    left_alone = {n for n in convolutions if not any(parameters[n] is parameters[m] for m in choice.masks)}
    assert left_alone == OUTPUTS[name]
    assert sparsity_of(choice.masks) == pytest.approx(0.9, abs=1e-3)
    table = str(choice).splitlines()
    assert [line.split()[0] for line in table[1 : len(choice.masks) + 2]] == [*choice.masks, "all"]
    assert all(row.macs_dense > 0 for row in choice.layers)
    for make_optimiser in OPTIMISERS:
        before = {n: w.detach().clone() for n, w in parameters.items() if n in choice.masks}
        optimiser = make_optimiser(model.parameters())
        hooks = choice.hold(optimiser)
        for x, y in batches:
            optimiser.zero_grad()
            loss(model(x), y).backward()
            optimiser.step()
            choice.check()
        hooks.remove()
        assert any(not torch.equal(before[n], parameters[n]) for n in before), type(optimiser).__name__


def test_a_loader_and_the_list_of_its_mini_batches_give_one_choice(tmp_path) -> None:
    first = radiogen.prune(monai_network("UNet"), volumes_loader(), segmentation_loss, sparsity=0.8)
    second = radiogen.prune(monai_network("UNet"), list(volumes_loader()), segmentation_loss, sparsity=0.8)
    assert all(torch.equal(first.masks[name], second.masks[name]) for name in first.masks)
    first.save(tmp_path / "masks.safetensors")
    masks, about = load_weight_masks(tmp_path / "masks.safetensors")
    assert about["criterion"] == "fts" and about["sparsity"] == 0.8
    assert all(torch.equal(masks[name], first.masks[name]) for name in first.masks)


def test_options_decide_and_excluded_layers_stay_whole() -> None:
    batches = [(x.float(), y) for x, y in images(3, size=4)]
    model = resnet()
    options = {"criterion": "magnitude", "scope": "layer", "exclude": ["conv1", "linear"]}
    choice = radiogen.prune(model, batches, cross_entropy, sparsity=0.5, **options)
    assert "conv1.weight" not in choice.masks and model.conv1.weight.all()
    assert all(float(mask.float().mean()) == pytest.approx(0.5, abs=0.02) for mask in choice.masks.values())
    assert choice.settings.criterion == "magnitude"


def test_what_cannot_be_pruned_is_refused_by_name() -> None:
    good = [(x.float(), y) for x, y in images(2)]
    cases = {
        "mini-batch that is dict": [{"image": good[0][0], "label": good[0][1]}],
        "mini-batch that is Tensor": [good[0][0]],
        "holds no mini-batch": [],
        "can be read only once": iter(good),
    }
    for wrong, batches in cases.items():
        with pytest.raises(PruningError, match=wrong):
            radiogen.prune(resnet(), batches, cross_entropy)
    with pytest.raises(PruningError, match="has no prunable weights"):
        radiogen.prune(nn.Sequential(nn.Flatten(), nn.PReLU()), good, cross_entropy)
    with pytest.raises(PruningError, match="criterion magic: is unknown"):
        radiogen.prune(resnet(), good, cross_entropy, criterion="magic")
    with pytest.raises(PruningError, match=r"sparsity 1\.5"):
        radiogen.prune(resnet(), good, cross_entropy, sparsity=1.5)
