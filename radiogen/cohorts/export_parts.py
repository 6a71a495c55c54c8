"""What every export begins with: which cases train, in which fold, which are tested on; files laid whole."""

import os
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from pydantic import Field

from radiogen.config import Settings
from radiogen.training.options import TrainOptions, choose_cases
from radiogen.errors import CaseError
from radiogen.io.cases import Case, find_cases
from radiogen.io.nifti import write_volume
from radiogen.resources import CohortCard, cohort_card, cohort_names
from radiogen.volume import array_of, volume_like


class ExportOptions(Settings):
    """How cases are laid out for others.

    Attributes:
        folds: Parts of the cases to train on, those of `radiogen train --folds`; 0 gives none.
        seed: Seed of the folds, that of `radiogen train --seed`.
        copy_files: Copy volumes rather than hard-link them.
        dataset_id: Number of an nnU-Net data set.
    """

    folds: int = Field(default=5, ge=0)
    seed: int = 0
    copy_files: bool = False
    dataset_id: int = Field(default=501, ge=1, le=999)


@dataclass(frozen=True)
class ExportCases:
    """Cases to train on, each in a fold, and cases to test on.

    Attributes:
        train: Those with an outline and lungs that are not of the split `test`.
        fold_of: Fold by case id; empty without folds.
        test: All others.
    """

    train: tuple[Case, ...]
    fold_of: dict[str, int]
    test: tuple[Case, ...]

    @property
    def without_outline(self) -> list[str]:
        """Ids of the cases to test on that have no outline."""
        return [case.case_id for case in self.test if not case.has_lesion]


def divide_cases(cases: Path, options: ExportOptions) -> ExportCases:
    """The folds that `radiogen train` would draw, so that another tool can be compared on the same ones.

    Raises:
        CaseError: No case has an outline to learn from.
        ConfigError: There are fewer patients than folds.
    """
    found = find_cases(cases)
    train, _ = choose_cases(found, TrainOptions())
    fold_of: dict[str, int] = {}
    for fold in range(options.folds):
        chosen = TrainOptions(folds=options.folds, fold=fold, seed=options.seed)
        fold_of |= {case.case_id: fold for case in choose_cases(found, chosen)[1]}
    ids = {case.case_id for case in train}
    test = tuple(case for case in found if case.case_id not in ids)
    for case in found:
        if not case.ct_path.is_file():
            raise CaseError(case.ct_path, "is missing", "ingest the case again")
    return ExportCases(tuple(train), fold_of, test)


def cards_of(cases: Sequence[Case]) -> list[CohortCard]:
    """The cards of the public cohorts that cases come from."""
    names = sorted({case.cohort for case in cases} & set(cohort_names()))
    return [cohort_card(name) for name in names]


def licence_line(cases: Sequence[Case]) -> str:
    """Under which licences cases stand, as far as their cohorts are known."""
    lines = [f"{card.title}: {card.licence}" for card in cards_of(cases)]
    others = {case.cohort for case in cases} - set(cohort_names())
    return "; ".join([*lines, *(["others: as their owners say"] if others else [])])


def lay_file(source: Path, target: Path, copy_files: bool) -> None:
    """Hard-link a file, or copy it where that is asked for or links cannot be made."""
    target.parent.mkdir(parents=True, exist_ok=True)
    if not copy_files:
        try:
            os.link(source, target)
            return
        except OSError:
            pass  # another disk, or a file system without links
    shutil.copyfile(source, target)


def lay_lesion(case: Case, target: Path, copy_files: bool) -> None:
    """The lesion mask with one label for all lesions: what a segmentation network learns."""
    mask = case.lesion()
    labels = array_of(mask)
    if labels.max() <= 1:
        lay_file(case.lesion_path, target, copy_files)
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    write_volume(volume_like((labels > 0).astype(np.uint8), mask), target)
