"""What the members of a trained classifier say of one patient together, and which features moved it."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from radiogen.egfr.bags import PLACE
from radiogen.egfr.persistence import EgfrModel
from radiogen.egfr.statistics import logit

Floats = NDArray[np.float64]
ROUNDING = 1e-9  # a smaller shift is none
CHUNK = 256  # rows of the explaining matrix held at once


@dataclass(frozen=True)
class Prediction:
    """One patient's answer: mean probability over the members, their range, class, and how familiar."""

    probability: float
    low: float  # smallest and largest of the members: how much the answer hangs on who was learned from
    high: float
    called: str
    distance: float  # up to 1 is familiar
    missing: int  # inputs that were not known and got the median
    inputs: int
    contributions: tuple[tuple[str, float], ...]  # input -> shift of the log odds
    strangest: str = ""  # the block of inputs in which the patient lies farthest away

    @property
    def in_distribution(self) -> bool:
        """Whether the patient looks like those learned from, with at most half of the inputs missing."""
        return self.distance <= 1 and 2 * self.missing <= self.inputs


def predict_one(model: EgfrModel, row: Floats, abstain: float = 0.0, explain: int = 0) -> Prediction:
    """Ask all members about one patient, alone, so that no other patient can change the number.

    Args:
        model: The trained classifier.
        row: (inputs,) in the order of config.json, NaN where unknown.
        abstain: No class is called within this distance of the threshold.
        explain: So many inputs are named that moved the log odds most, each against the median patient.
    """
    said = _probabilities(model, row[None, :])[:, 0]
    asked = _asked(model, row)
    probability, threshold = float(said.mean()), float(model.config["threshold"])
    negative, positive = model.config["labels"]
    called = positive if probability >= threshold else negative
    if abs(probability - threshold) < abstain:
        called = "abstained"
    return Prediction(
        probability=probability,
        low=float(said.min()),
        high=float(said.max()),
        called=called,
        distance=float(model.familiarity.distance(row[None, :])[0]),
        strangest=model.familiarity.strangest(row[None, :])[0],
        missing=int(np.isnan(row[asked]).sum()),
        inputs=int(asked.sum()),
        contributions=_contributions(model, row, explain) if explain else (),
    )


def _asked(model: EgfrModel, row: Floats) -> NDArray[np.bool_]:
    """The inputs that this patient can have: not those of a second lesion where there is one."""
    names = [*model.config["clinical_columns"], *model.config["feature_columns"]]
    places = np.array([name.rpartition(PLACE)[2] if PLACE in name else "" for name in names])
    asked = np.ones(len(row), dtype=bool)
    for place in set(places) - {"", "1"}:
        here = places == place
        asked[here] = not np.isnan(row[here]).all()
    return asked


def _probabilities(model: EgfrModel, rows: Floats) -> Floats:
    return np.stack([member.predict_proba(rows)[:, 1] for member in model.members])


def _contributions(model: EgfrModel, row: Floats, count: int) -> tuple[tuple[str, float], ...]:
    """Log odds with each input as it is, minus the log odds with it unknown (the median of the patients)."""
    names = [*model.config["clinical_columns"], *model.config["feature_columns"]]
    here = float(logit(_probabilities(model, row[None, :])).mean())
    shifts = np.zeros(len(row))
    for start in range(0, len(row), CHUNK):
        columns = np.arange(start, min(start + CHUNK, len(row)))
        rows = np.repeat(row[None, :], len(columns), axis=0)
        rows[np.arange(len(columns)), columns] = np.nan
        shifts[columns] = here - logit(_probabilities(model, rows)).mean(0)
    order = np.argsort(-np.abs(shifts), kind="stable")[:count]
    return tuple((names[column], float(shifts[column])) for column in order if abs(shifts[column]) > ROUNDING)
