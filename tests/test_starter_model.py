"""The shipped starter model: what its folder says, and what it is worth on lesions that it has not seen."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from radiogen.ingestion.ingest import ingest
from radiogen.ingestion.options import IngestOptions
from radiogen.io.cases import Case, find_cases
from radiogen.model.folder import CARD, load_model, starter_model
from radiogen.model.priors import BoxMm, box_round
from radiogen.segmentation.volume import Prompt, segment_volume
from radiogen.volume import array_of


@pytest.fixture(scope="module")
def model():
    return load_model(starter_model(), torch.device("cpu"))


def test_it_is_small_and_says_what_it_has_seen(model):
    assert sum(path.stat().st_size for path in model.folder.rglob("*") if path.is_file()) < 15e6
    assert {"box", "lungs", "none"} <= set(model.config.priors)
    seen = set(model.config.patients_seen or ())
    assert {"113_HM10395", "LIDC-IDRI-0001"} <= seen
    assert not any(name.startswith(("LUNG1", "R01", "AMC")) for name in seen)


def test_its_card_tells_that_no_true_lesion_was_learned_from_and_what_it_is_worth_on_some(model):
    card = (model.folder / CARD).read_text(encoding="utf-8")
    for words in ("Not for clinical use", "true lesions", "made lesions", "floor", "false lesions"):
        assert words in card


def test_nothing_of_a_machine_is_in_its_folder(model):
    for path in model.folder.rglob("*.json"):
        text = path.read_text(encoding="utf-8")
        json.loads(text)
        assert not any(f"/{place}" in text for place in ("work/", "home/", "root"))


@pytest.fixture(scope="module")
def nodule(shared_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Case:
    """LIDC-IDRI-0001, half of whose readers agree on a nodule of about 8 ml."""
    cases = tmp_path_factory.mktemp("starter") / "cases"
    ingest(shared_data / "lidc_idri_partial" / "LIDC-IDRI-0001", cases, IngestOptions(cohort="lidc_idri"))
    (case,) = find_cases(cases)
    return case


def dice(model, case: Case, prompt: Prompt) -> float:
    found = array_of(segment_volume(model, case.ct(), case.lungs(), prompt).lesion) > 0
    lesion = array_of(case.lesion()) > 0
    return 2 * float((found & lesion).sum()) / float(found.sum() + lesion.sum())


def grown(box: BoxMm, share: float) -> BoxMm:
    """A box moved out on every side by a share of its size."""
    by = share * (np.array(box.high) - np.array(box.low))
    return BoxMm(tuple(np.array(box.low) - by), tuple(np.array(box.high) + by))


@pytest.mark.parametrize("share", [0.0, 0.05])
def test_it_outlines_a_nodule_better_than_a_threshold_within_the_ellipsoid(model, nodule, share):
    box = grown(box_round(nodule.lesion(), 1), share)
    assert dice(model, nodule, Prompt("box", (box,))) > 0.84


def test_it_finds_the_nodule_without_a_box(model, nodule):
    assert dice(model, nodule, Prompt("auto")) > 0.7
