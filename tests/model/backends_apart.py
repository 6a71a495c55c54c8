"""Other engines than torch compute what torch computes, or say that they do not."""

import pytest
import torch

from radiogen.errors import ConfigError, DeviceError, MissingPackageError
from radiogen.model import backends
from radiogen.model.backends import check_agreement, make_backend
from radiogen.networks.raseg import RASegSettings, build_raseg
from radiogen.segmentation.sliding import network_call

CPU = torch.device("cpu")
MODERN = RASegSettings(
    in_channels=2, full_width=2, encoder_widths=(3, 4, 5, 6), recurrent_widths=(6,), decoder_widths=(5, 4, 3),
    both_ways=True, gate="learned", gate_norm="instance", prior_resize="area", prior_head=True, joint=True,
)  # fmt: skip
PAPER = RASegSettings(encoder_widths=(2, 3, 4, 5), recurrent_widths=(5, 4), decoder_widths=(4, 3, 2))


def windows(settings, size=(32, 48, 32), seed=0):
    rng = torch.Generator().manual_seed(seed)
    image = torch.rand(1, settings.in_channels, *size, generator=rng)
    prior = torch.zeros(1, 1, *size)
    prior[..., 8:24, 10:30, 8:24] = 1.0
    return image, prior


@pytest.mark.parametrize("settings", [MODERN, PAPER], ids=["modern", "paper"])
def test_openvino_gives_the_probabilities_of_torch_for_every_size_of_window(settings):
    network = build_raseg(settings, 0).eval()
    call, torchs = network_call(network, CPU, "openvino"), network_call(network, CPU)
    for given in (windows(settings), windows(settings, seed=1), windows(settings, size=(32, 32, 32))):
        apart = (torch.sigmoid(call(*given)) - torch.sigmoid(torchs(*given))).abs().max()
        assert torchs(*given).std() > 0
        assert apart <= 1e-4


def test_openvino_prepares_once_for_a_size(monkeypatch):
    made = []
    true = backends.ENGINES["openvino"]
    monkeypatch.setitem(backends.ENGINES, "openvino", lambda *given: made.append(1) or true(*given))
    call = network_call(build_raseg(PAPER, 0).eval(), CPU, "openvino")
    answers = [call(*windows(PAPER, seed=seed)) for seed in (0, 1)]
    assert made == [1]
    assert not torch.equal(*answers)


def test_a_compiled_network_gives_the_probabilities_of_torch():
    class Tiny(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = torch.nn.Conv3d(2, 1, 3, padding=1)

        def forward(self, image, prior):
            return self.conv(torch.cat([image, prior], dim=1)).relu()

    network = Tiny().eval()
    given = windows(PAPER, size=(16, 16, 16))
    found = network_call(network, CPU, "compile")(*given)
    torch.testing.assert_close(found, network_call(network, CPU)(*given), atol=1e-5, rtol=0)


def test_an_engine_that_computes_something_else_is_refused(monkeypatch):
    network = build_raseg(PAPER, 0).eval()
    monkeypatch.setitem(
        backends.ENGINES, "openvino", lambda *_: lambda image, prior: network(image, prior) + 0.01
    )
    with pytest.raises(
        DeviceError, match=r"--engine openvino: differs from torch .* \(take --engine torch\)"
    ):
        network_call(network, CPU, "openvino")(*windows(PAPER))


def ball_logits(size=40, radius=12.0, steepness=0.6):
    """Logits of a ball with a soft edge, as a network gives them for a lesion."""
    # Off the middle of the voxels on every axis: else many have the very same distance.
    z, y, x = torch.meshgrid(*[torch.arange(size) - size / 2 + by for by in (0.1, 0.23, 0.41)], indexing="ij")
    return (steepness * (radius - (z**2 + y**2 + x**2).sqrt()))[None, None]


@pytest.mark.parametrize("seed", [0, 1])
def test_a_probability_that_differs_in_the_fourth_digit_but_gives_the_mask_is_accepted(seed):
    """OpenVINO on three whole CTs: 1e-4 to 3e-4 in a probability, the same mask."""
    wanted = ball_logits()
    # 0.0012 of a logit is 3e-4 of a probability at 0.5.
    noise = torch.rand(wanted.shape, generator=torch.Generator().manual_seed(seed)) * 2 - 1
    assert 1e-4 < check_agreement(wanted + 1.2e-3 * noise, wanted) <= 3.01e-4


@pytest.mark.parametrize(
    ("logits", "wrong"),
    [
        (lambda wanted: wanted + 0.02, "in a probability|voxels of the mask|in the score"),
        (lambda wanted: torch.where((wanted.abs() < 0.02), -wanted, wanted), "voxels of the mask at 0.5"),
        (lambda wanted: torch.where(wanted > 2, wanted + 0.05, wanted), "in the score of the mask at"),
        (lambda wanted: wanted.index_fill(2, torch.tensor([20]), float("nan")), "by nan in a probability"),
        (torch.zeros_like, "in a probability, over 0.01"),
    ],
)
def test_another_mask_or_score_is_refused(logits, wrong):
    wanted = ball_logits()
    with pytest.raises(ValueError, match=wrong):
        check_agreement(logits(wanted), wanted)


def test_an_empty_window_agrees_with_itself():
    empty = torch.full((1, 1, 16, 16, 16), -20.0)
    assert check_agreement(empty, empty) == 0
    with pytest.raises(ValueError, match=r"over 0\.01"):
        check_agreement(empty.index_fill(2, torch.tensor([3]), 1.0), empty)


def test_an_engine_that_cannot_be_made_is_one_line_with_the_way_out(monkeypatch):
    def fail(*_):
        raise RuntimeError("no C++ compiler found\nand a long story")

    monkeypatch.setitem(backends.ENGINES, "compile", fail)
    call = network_call(build_raseg(PAPER, 0).eval(), CPU, "compile")
    with pytest.raises(
        DeviceError, match=r"cannot be prepared here: no C\+\+ compiler found \(take --engine torch\)"
    ):
        call(*windows(PAPER))


def test_other_engines_are_for_the_cpu():
    with pytest.raises(ConfigError, match="--engine openvino: works on the CPU, not on cuda"):
        make_backend("openvino", build_raseg(PAPER, 0), torch.device("cuda"))


def test_a_missing_openvino_is_said_before_the_work(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "openvino", None)
    with pytest.raises(MissingPackageError, match=r"pip install 'radiogen\[openvino\]'"):
        make_backend("openvino", build_raseg(PAPER, 0), CPU)


def test_nothing_is_reported_to_the_manufacturer(monkeypatch):
    telemetry = pytest.importorskip("openvino_telemetry")
    sent = []
    monkeypatch.setattr(telemetry.Telemetry, "send_event", lambda *told, **_more: sent.append(told))
    network_call(build_raseg(PAPER, 0).eval(), CPU, "openvino")(*windows(PAPER))
    assert sent == []
