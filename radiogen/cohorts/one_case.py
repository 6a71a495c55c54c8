"""Take one case through its steps, in whichever process: what every worker does."""

import errno
import logging
import os
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path

import torch

from radiogen import __version__
from radiogen.cohorts.ledger import TRIES, Ledger, LedgerEntry, stamp
from radiogen.cohorts.settings import CohortSettings
from radiogen.errors import CaseError, OutputError, RadiogenError
from radiogen.features.extract import cache_features
from radiogen.ingestion.case_folder import CasePlan
from radiogen.ingestion.ingest import ingest_one
from radiogen.io.cases import Case, find_cases
from radiogen.locks import waited_for
from radiogen.model.folder import (
    CONFIG,
    WEIGHTS,
    AnyModel,
    Model,
    ModelConfig,
    all_members,
    load_models,
    model_hash,
    read_model_config,
)
from radiogen.runtime import peak_memory_mb, pick_device
from radiogen.segmentation.formats import FORMATS, Format, FormatWriter
from radiogen.segmentation.inference import Inference
from radiogen.segmentation.segment import CaseSegmenter, chosen_prior

Folders = tuple[Path, ...]


def read_networks(folders: Sequence[Path]) -> tuple[ModelConfig, str]:
    """Return what the networks of a run share, and one hash for them.

    Raises:
        ModelError: A folder is not whole, or the networks see their input differently.
    """
    members = all_members(folders)
    if len(members) == 1:
        return read_model_config(members[0]), model_hash(members[0])
    joined = load_models(folders, torch.device("cpu"))
    return joined.config, joined.hash


def networks_of(folders: Folders, device: str) -> AnyModel:
    """Return the networks that segment; loaded once in each process, again when their files have changed."""
    return _loaded(folders, device, stamp(files_of(folders)))


def network_of_features(folders: Folders, device: str) -> Model:
    """Return the network whose features are taken: the first.

    Features of networks that were trained apart cannot be averaged: their channels are in no common order.
    """
    return networks_of(folders, device).members[0]


def files_of(folders: Iterable[Path]) -> list[Path]:
    """Return the files that make the networks."""
    return [folder / name for folder in all_members(folders) for name in (WEIGHTS, CONFIG)]


@lru_cache(maxsize=1)
def _loaded(folders: Folders, device: str, _stamp: str) -> AnyModel:
    return load_models(folders, pick_device(device))


DISK_ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EROFS)
SEGMENTED, FEATURES, CASES = "segmented", "features", "cases"
_one_at_a_time = threading.Lock()  # threads of one Dask worker would share networks and their memory
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class CaseTask:
    """All that a worker needs to know of one case; its paths are seen by the worker as by the head."""

    run: Path
    case_id: str
    settings: CohortSettings
    key: str  # hash of all that decides the results
    token: str  # of this start of the run
    case: Case | None = None
    plan: CasePlan | None = None
    archive: Path | None = None  # from which the files of the plan were unpacked
    version: str = __version__

    @property
    def inputs(self) -> list[Path]:
        """The files that the case is made of; an archive stands for its members, which are unpacked anew."""
        if self.archive is not None:
            return [self.archive]
        if self.case is not None:
            return [self.case.ct_path, self.case.lungs_path, self.case.lesion_path]
        if self.plan is None:
            return []
        ct, outline = self.plan.source.ct, self.plan.source.outline
        files = [outline.path] if outline else []
        if isinstance(ct, Path):
            return [ct, *files]
        return [*(one.path for one in ct.slices), *files] if ct else files

    @property
    def outputs(self) -> list[Path]:
        """The files that say that its steps are done."""
        case, segmented = self.run / CASES / self.case_id, self.run / SEGMENTED / self.case_id
        formats = [FORMATS[name] for name in self.settings.segment.formats if name != "nifti"]
        masks = ["lesion.nii.gz", "lesions.csv", "lesion.run.json", *formats]
        outputs = {
            "ingest": [case / "ct.nii.gz", case / "case.run.json"],
            "segment": [segmented / name for name in masks],
            "extract-features": [self.run / FEATURES / f"{self.case_id}.json"],
        }
        return [path for step in self.settings.of_a_case for path in outputs[step]]


def is_settled(task: CaseTask, entry: LedgerEntry | None) -> bool:
    """Return whether nothing need be done: done or failed with these settings, and no file changed since.

    What failed is not tried again by itself: the same input fails in the same way.
    """
    if entry is None or entry.settings != task.key or entry.inputs != stamp(task.inputs):
        return False
    return Ledger(task.run).still_stands(entry)


def run_case(task: CaseTask) -> LedgerEntry:
    """Take one case through its steps, and write down what became of it; never raises."""
    ledger = Ledger(task.run)
    with _one_at_a_time:
        # A network gives other last digits with another number of threads, so that a share of the processors
        # would make `--jobs 2` differ from `--jobs 1`.
        torch.set_num_threads(task.settings.threads)
        try:
            if task.version != __version__ or not ledger.home.is_dir():
                raise _unusable_worker(task, ledger)
            with waited_for(ledger.lock_of(task.case_id)):
                entry = _attempt(task, ledger)
                if entry.outcome != "stopped":
                    ledger.write(entry)
                return entry
        except (RadiogenError, OSError) as error:
            return stopped(task, error)


def stopped(task: CaseTask, error: Exception) -> LedgerEntry:
    """Return the entry of a case on which the whole run has to end."""
    wrong, hint = (str(error.args[1]), error.hint) if isinstance(error, RadiogenError) else ("", "")
    reason = wrong or f"cannot be written: {getattr(error, 'strerror', None) or error}"
    return LedgerEntry(task.case_id, "stopped", task.key, reason=reason, hint=hint or "free some space")


def died(task: CaseTask) -> LedgerEntry:
    """Return the entry of a case on which every worker died."""
    reason = f"the worker died {TRIES} times on this case"
    hint = "give a worker more memory (fewer --jobs), then radiogen cohort retry"
    entry = LedgerEntry(task.case_id, "failed", task.key, stamp(task.inputs), reason=reason, hint=hint)
    return replace(entry, step=task.settings.of_a_case[-1])


def _unusable_worker(task: CaseTask, ledger: Ledger) -> RadiogenError:
    if task.version != __version__:
        wrong = f"a worker runs radiogen {__version__}, the head {task.version}"
        return OutputError(task.run, wrong, "install one version everywhere")
    return OutputError(ledger.home, "is not seen by a worker", "take a folder that all machines share")


def _attempt(task: CaseTask, ledger: Ledger) -> LedgerEntry:
    # The marks decide, not Dask's count of deaths, which also counts the neighbours of a case that kills.
    before = ledger.tries(task.case_id, task.token)
    if len(before) >= TRIES:
        return died(task)
    mark = ledger.home / "tries" / f"{task.case_id}.{task.token}.{os.getpid()}-{len(before)}"
    mark.parent.mkdir(exist_ok=True)
    mark.touch()
    try:
        return _steps(task, ledger)
    finally:
        for path in (mark, *before):
            path.unlink(missing_ok=True)


def _steps(task: CaseTask, ledger: Ledger) -> LedgerEntry:
    seconds: dict[str, float] = {}
    inputs, step = stamp(task.inputs), ""
    entry = LedgerEntry(task.case_id, "done", task.key, inputs, worker=os.getpid())
    try:
        for step in task.settings.of_a_case:
            began = time.perf_counter()
            STEP[step](task, ledger)
            seconds[step] = round(time.perf_counter() - began, 3)
    except Exception as error:  # one bad case never stops a cohort
        if _is_full(error):
            return stopped(task, error)
        reason, hint = _why(task, error)
        entry = replace(entry, outcome="failed", step=step, reason=reason, hint=hint)
    if entry.outcome == "done":
        made = tuple(str(path.relative_to(task.run)) for path in task.outputs)
        entry = replace(entry, made=made, outputs=stamp(task.outputs))
    return replace(entry, seconds=seconds, peak_mb=round(peak_memory_mb(), 1))


def _is_full(error: BaseException) -> bool:
    """Return whether nothing can be written any more, which is no fault of the case."""
    while not isinstance(error, OSError) and error.__cause__ is not None:
        error = error.__cause__
    return isinstance(error, OSError) and error.errno in DISK_ERRORS


def _why(task: CaseTask, error: Exception) -> tuple[str, str]:
    if isinstance(error, RadiogenError):
        return error.reason, error.hint
    log.exception("case %s", task.case_id)
    return f"unexpected {type(error).__name__}: {error}", "report it with the log"


def _ingest(task: CaseTask, ledger: Ledger) -> None:
    if task.plan is None:
        raise CaseError(task.case_id, "is no scan", "leave the step ingest out")
    known = ledger.read(task.case_id)
    same = known is not None and known.inputs == stamp(task.inputs)
    ingest_one(task.plan, task.run / CASES, keep=same)


def _case(task: CaseTask) -> Case:
    if task.case is not None:
        return task.case
    (case,) = find_cases(task.run / CASES / task.case_id)
    return case


def _segment(task: CaseTask, _ledger: Ledger) -> None:
    options, model = task.settings.segment, networks_of(task.settings.model, task.settings.device)
    options = options.model_copy(update={"prior": chosen_prior(options, model.config), "existing": "skip"})
    out = task.run / SEGMENTED
    formats = _writer_of(task, model.hash, out)
    CaseSegmenter(out, Inference(model, options.how), options, formats).segment(_case(task))


def _writer_of(task: CaseTask, model_hash: str, out: Path) -> FormatWriter:
    """Return the writer of a case: a scan refers to its own DICOM, a case to the folder that was named."""
    options = task.settings.segment
    if task.plan is not None and options.dicom is None:
        return FormatWriter(options.formats, task.plan.source, options.keep_patient, model_hash, out)
    return _cached_writer(options.formats, options.dicom, options.keep_patient, model_hash, out)


@lru_cache(maxsize=1)
def _cached_writer(
    formats: tuple[Format, ...], dicom: Path | None, keep_patient: bool, model_hash: str, out: Path
) -> FormatWriter:
    return FormatWriter(formats, dicom, keep_patient, model_hash, out)


def _features(task: CaseTask, _ledger: Ledger) -> None:
    masks = masks_of(task.settings, task.run)
    model = network_of_features(task.settings.model, task.settings.device)
    cache_features(_case(task), task.run / FEATURES, model, task.settings.features, masks)


def masks_of(settings: CohortSettings, run: Path) -> Path | None:
    """Return where the lesions of the features are: what was segmented; None: the outlines of the cases."""
    return run / SEGMENTED if "segment" in settings.steps else None


STEP: dict[str, Callable[[CaseTask, Ledger], None]] = {
    "ingest": _ingest,
    "segment": _segment,
    "extract-features": _features,
}
