"""The wrong way finds signal in noise, the tool's own way does not."""

from benchmarks.egfr_leak import demonstrate_leak


def test_a_reduction_fitted_on_all_labels_finds_signal_in_noise_and_the_own_way_does_not():
    found = demonstrate_leak(features=512, repeats=12)
    assert found.wrong_way > 0.9
    assert abs(found.own_way - 0.5) < 0.05
