"""The road on a real scan, a phase of 4D-Lung: the figures of its outline, and a mask where the prompt is."""

import csv
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny_cases import tiny_cases
from training.tiny_run import tiny_settings

from radiogen.ingestion.ingest import ingest
from radiogen.ingestion.options import IngestOptions
from radiogen.io.cases import Case, find_cases
from radiogen.io.nifti import read_mask
from radiogen.measures.detection import number_lesions
from radiogen.measures.floors import exact_boxes, loosen_box, measure_floors
from radiogen.measures.lesions import measure_lesions
from radiogen.model.folder import Model, load_model
from radiogen.model.priors import box_round, box_voxels
from radiogen.segmentation.segment import SegmentedCase, SegmentOptions, segment
from radiogen.segmentation.volume import BOX_MARGIN_MM
from radiogen.training.settings import TrainOptions
from radiogen.training.train import train
from radiogen.volume import array_of, same_grid, voxel_ml

TUMOUR = "Tumor_c40"
TUMOUR_ML = 67.56  # of the polygons of Tumor_c40, filled


@pytest.fixture(scope="module")
def scan(shared_data: Path) -> Path:
    return shared_data / "lung_4d_113"


@pytest.fixture(scope="module")
def rtstruct(scan: Path) -> Path:
    return next(scan.rglob("*47.35/*.dcm"))


@pytest.fixture(scope="module")
def case(scan: Path, tmp_path_factory: pytest.TempPathFactory) -> Case:
    cases = tmp_path_factory.mktemp("real") / "cases"
    ingest(scan, cases, IngestOptions(roi=TUMOUR))
    (case,) = find_cases(cases)
    return case


@pytest.fixture(scope="module")
def eager_model(shared_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Model:
    """A network of a second's training, its threshold so low that it says lesion all over the prompt."""
    root = tmp_path_factory.mktemp("tiny")
    tiny_cases(root / "cases", 4)
    cpu = torch.device("cpu")
    train(root / "cases", root / "model", tiny_settings(), TrainOptions(preset="small"), cpu)
    model = load_model(root / "model", cpu)
    return replace(model, config=model.config.model_copy(update={"threshold": 0.01}))


def asked(case: Case, model: Model, out: Path, outline: Path, roi: str | None = None) -> SegmentedCase:
    options = SegmentOptions(prior="box", outline=outline, roi=roi)
    (done,) = segment(case.folder, out, model, options).done
    return done


def test_ingest_gives_the_scanners_grid_and_the_volume_of_the_tumour(case):
    ct, tumour = case.ct(), case.lesion()
    assert ct.GetSize() == (512, 512, 99)
    assert ct.GetSpacing() == pytest.approx((0.9766, 0.9766, 3.0), abs=1e-4)
    assert (array_of(ct).min(), array_of(ct).max()) == (-1000, 2976)
    (lesion,) = measure_lesions(tumour)
    assert lesion.volume_ml == pytest.approx(TUMOUR_ML, rel=0.01)
    assert array_of(ct)[array_of(tumour) > 0].mean() == pytest.approx(-21.7, abs=1)
    assert 1500 < (array_of(case.lungs()) > 0).sum() * voxel_ml(ct) < 4000


def test_filling_its_loosened_box_gives_what_others_measured(case):
    lesions = number_lesions(array_of(case.lesion()))
    found = measure_floors(
        lesions, [loosen_box(faces, 0.1) for faces in exact_boxes(lesions)], array_of(case.ct())
    )
    assert list(found.values()) == pytest.approx([0.23, 0.38, 0.35, 0.58, 0.57], abs=0.01)


def test_segment_lays_the_lesion_into_the_box_on_the_scanners_grid(case, eager_model, rtstruct, tmp_path):
    done = asked(case, eager_model, tmp_path / "out", rtstruct, TUMOUR)
    lesion = read_mask(done.folder / "lesion.nii.gz")
    assert same_grid(lesion, case.ct())
    inside = box_voxels(box_round(case.lesion(), 1), lesion, BOX_MARGIN_MM)
    found = array_of(lesion) == 1
    assert found.any() and not (found & ~inside).any()
    assert np.unique(array_of(lesion)).tolist() == [0, 1]
    (row,) = csv.DictReader((done.folder / "lesions.csv").read_text(encoding="utf-8").splitlines())
    assert float(row["volume_ml"]) == pytest.approx(found.sum() * voxel_ml(lesion), rel=1e-3)
    assert (done.folder / "lesion.png").stat().st_size > 50_000
