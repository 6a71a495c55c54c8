"""What an evaluation says of a model beside its floors: a gain only where the interval shows one."""

import pytest

from radiogen.evaluation.sentences import describe_floor
from radiogen.evaluation.summary import compare_with_best_floor
from radiogen.measures.floors import FLOORS


def rows(dice: list[float], **floors: list[float | None]) -> list[dict[str, object]]:
    """Rows of as many patients; floors that are not given are 0.1."""
    return [
        {"patient_id": f"p{number}", "dice": value, **dict.fromkeys(FLOORS, 0.1)}
        | {name: values[number] for name, values in floors.items()}
        for number, value in enumerate(dice)
    ]


def describe(dice: list[float], **floors: list[float | None]) -> str:
    return describe_floor(compare_with_best_floor(rows(dice, **floors)))


MID = "floor_mid_threshold_ellipsoid"


@pytest.mark.parametrize(
    ("dice", "verdict"),
    [
        ([0.90, 0.91, 0.92, 0.93], "the interval excludes zero."),
        ([0.80, 0.90, 0.80, 0.85], "the interval holds zero: no gain over the floor is shown."),
        ([0.50, 0.51, 0.52, 0.53], "the model is worse than the floor, which needs no network."),
        ([0.70], "and one patient has no interval: the model is not above the floor."),
        ([0.90], "and one patient has no interval."),
    ],
)
def test_the_verdict_is_that_of_the_interval_to_the_best_of_all_floors(
    dice: list[float], verdict: str
) -> None:
    said = describe(dice, floor_box=[0.7] * len(dice), **{MID: [0.83] * len(dice)})
    assert said.startswith("Above the floor (a mid-threshold within the ellipsoid, 0.830) in ")
    assert said.endswith(verdict)


def test_a_floor_that_some_case_lacks_is_named() -> None:
    said = describe([0.8, 0.9, 0.85], floor_box=[0.7] * 3, **{MID: [0.9, None, 0.9]})
    assert "Above the floor (the box filled, 0.700) in 3 of 3 cases" in said
    assert "(no CT, or an older table): a mid-threshold within the ellipsoid." in said
    assert "Not compared" not in describe([0.8, 0.9])
