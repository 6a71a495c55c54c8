"""Read a run folder: the tables, JSON files, pictures and run records of radiogen commands."""

import json
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from radiogen.errors import CaseError
from radiogen.io.cases import MANIFEST, Case, find_cases, is_case_source
from radiogen.io.tables import read_text_table

Row = dict[str, str]
MASK = "lesion.nii.gz"
COHORT_SETTINGS = Path(".cohort") / "settings.json"  # written by `radiogen cohort run`
SEGMENTED_MARKS = ("lesion.png", "lesions.csv", "lesion.run.json")


@dataclass(frozen=True)
class CaseResult:
    """One segmented case: its pictures, its lesions and the decisions in its run record."""

    case_id: str
    pictures: tuple[Path, ...]
    lesions: tuple[Row, ...]
    prompt: str
    prior: str
    decisions: tuple[str, ...]


@dataclass(frozen=True)
class TrainingResult:
    """A model folder: its learning curves, its settings and its card."""

    epochs: tuple[dict[str, Any], ...]
    validation: tuple[dict[str, Any], ...]
    config: dict[str, Any]
    card: str


@dataclass(frozen=True)
class Run:
    """The contents of a run folder; parts that are not there are empty."""

    name: str
    manifest: tuple[Row, ...] = ()
    failures: tuple[Row, ...] = ()
    ingest_decisions: dict[str, tuple[str, ...]] = field(default_factory=dict)
    segmented: tuple[CaseResult, ...] = ()
    evaluation: tuple[Row, ...] = ()
    evaluation_summary: dict[str, Any] = field(default_factory=dict)
    features: tuple[Row, ...] = ()
    features_about: dict[str, Any] = field(default_factory=dict)
    predictions: tuple[Row, ...] = ()
    layers: tuple[Row, ...] = ()
    pruning: dict[str, Any] = field(default_factory=dict)
    training: TrainingResult | None = None
    validation: dict[str, Any] = field(default_factory=dict)
    plots: tuple[Path, ...] = ()
    egfr_config: dict[str, Any] = field(default_factory=dict)
    is_own_validation: bool = True  # of this run, not of a model that the run used
    records: tuple[tuple[str, dict[str, Any]], ...] = ()

    @property
    def marker(self) -> str:
        """What the classifier of this run predicts."""
        markers = [*(row.get("marker") for row in self.predictions[:1]), self.validation.get("marker")]
        return str(next((name for name in (self.egfr_config.get("marker"), *markers) if name), "EGFR"))

    @property
    def feature_names(self) -> list[str]:
        """Columns of the feature table, without those that name the lesion."""
        return [
            name for name in (self.features or ({},))[0] if name not in ("case_id", "patient_id", "lesion")
        ]

    def is_empty(self) -> bool:
        """Whether there is nothing to report; run records alone do not count."""
        not_counted = ("name", "records", "is_own_validation")
        return not any(value for name, value in vars(self).items() if name not in not_counted)

    def only(self, case_id: str) -> "Run":
        """Return the run with one case only; the models and their records stay.

        Raises:
            CaseError: There is no such case.
        """
        ids = {*self.ingest_decisions, *(case.case_id for case in self.segmented)}
        ids |= {row["case_id"] for row in (*self.manifest, *self.failures) if row.get("case_id")}
        if case_id not in ids:
            known = ", ".join(sorted(ids)[:8]) + (", ..." if len(ids) > 8 else "")
            raise CaseError(
                f"case {case_id}", "is not in this run", f"there are {known}" if ids else "name none"
            )

        def own(rows: tuple[Row, ...]) -> tuple[Row, ...]:
            return tuple(row for row in rows if row.get("case_id") == case_id)

        own_rows = (*own(self.manifest), *own(self.features))
        patients = {row.get("patient_id", "") for row in own_rows} | {case_id}
        return replace(
            self,
            name=f"{case_id} · {self.name}",
            manifest=own(self.manifest),
            failures=own(self.failures),
            ingest_decisions={case_id: self.ingest_decisions.get(case_id, ())},
            segmented=tuple(case for case in self.segmented if case.case_id == case_id),
            evaluation=own(self.evaluation),
            evaluation_summary={},
            features=own(self.features),
            predictions=tuple(row for row in self.predictions if row.get("patient_id") in patients),
            records=tuple(
                (path, record)
                for path, record in self.records
                # Records of cases lie three levels deep, in segmented/CASE/; others are of the whole run.
                if case_id in Path(path).parts or len(Path(path).parts) < 3
            ),
        )


def read_run(run: Path, leave_out: Path, beside: Path | None = None, egfr: Path | None = None) -> Run:
    """Read a run folder, a folder of cases, of segmented cases, of one case, or of one model.

    Args:
        run: The folder.
        leave_out: Run record that is not read: that of the page itself, or two runs would differ.
        beside: Folder of the cases, where the run does not hold them.
        egfr: Folder of the EGFR model, where the run does not hold it.

    Raises:
        CaseError: It is not a folder, holds nothing to report, or a JSON file of it is damaged.
        TableError: A table of it is damaged.
    """
    if not run.is_dir():
        raise CaseError(run, "is not a folder", "give the folder that a radiogen command wrote")
    cases, own_egfr = _part(run, "cases", "manifest.csv"), _part(run, "egfr", "validation.json")
    cases = beside if beside and not (cases / "manifest.csv").is_file() else cases
    is_own = egfr is None or (own_egfr / "validation.json").is_file()
    validated = own_egfr if is_own or egfr is None else egfr
    pruned, model = _part(run, "pruned", "layers.csv"), _part(run, "model", "metrics.json")
    segmented = run / "segmented" if (run / "segmented").is_dir() else run
    failures = {
        "ingest": cases / "failures.csv",
        "segment": segmented / "failures.csv",
        "extract-features": run / "features.failures.csv",
        "cohort": run / "failures.csv",
    }
    contents = Run(
        name=run.resolve().name,
        manifest=_rows(cases / "manifest.csv"),
        failures=read_failures(failures),
        ingest_decisions=dict(_ingest_decisions(run, cases)),
        segmented=tuple(_case_result(folder) for folder in _segmented_folders(segmented)),
        evaluation=_rows(run / "evaluation.csv"),
        evaluation_summary=_content(run / "evaluation.json"),
        features=_rows(run / "features.csv"),
        features_about=_content(run / "features.json"),
        predictions=_rows(run / "predictions.csv"),
        layers=_rows(pruned / "layers.csv"),
        pruning=_content(pruned / "config.json") if (pruned / "layers.csv").is_file() else {},
        training=_training(model),
        **_egfr_validation(validated),
        is_own_validation=is_own,
        records=tuple(_records(run, leave_out)),
    )
    if contents.is_empty():
        raise CaseError(run, "holds nothing to report", "give the folder of a run, or of segmented cases")
    return contents


def _part(run: Path, name: str, mark: str) -> Path:
    """Return the named folder of a run, or the run itself where it is such a folder already."""
    return run if not (run / name).is_dir() and (run / mark).is_file() else run / name


def read_failures(tables: dict[str, Path]) -> tuple[Row, ...]:
    """Read the failures of all steps; one that a later table repeats is listed once."""
    failures: dict[tuple[str, str], Row] = {}
    for step, path in tables.items():
        for row in _rows(path):
            key = row.get("case_id", ""), row.get("reason", "")
            # The table of a cohort run repeats those of its steps, and stands last.
            failures.setdefault(key, {"case_id": key[0], "step": step, **row})
    return tuple(failures.values())


def _segmented_folders(folder: Path) -> list[Path]:
    inside = [each for each in _sorted(folder) if each.is_dir() and _is_segmented(each)]
    alone = [folder] if (folder / "lesion.png").is_file() or (folder / "lesion.run.json").is_file() else []
    return inside or alone


def _is_segmented(folder: Path) -> bool:
    return any((folder / mark).is_file() for mark in SEGMENTED_MARKS)


def _case_result(folder: Path) -> CaseResult:
    lesions = _rows(folder / "lesions.csv")
    record = _content(folder / "lesion.run.json")
    options = record.get("options") or {}
    return CaseResult(
        case_id=folder.resolve().name,
        pictures=_pictures(folder),
        lesions=lesions,
        prompt=str(options.get("prompt") or ""),
        prior=str(options.get("prior") or ""),
        decisions=_texts(record.get("decisions")),
    )


def _ingest_decisions(run: Path, cases: Path) -> Iterator[tuple[str, tuple[str, ...]]]:
    for folder in [run] if (run / "case.json").is_file() else _sorted(cases):
        if (folder / "case.json").is_file():
            about = _content(folder / "case.json")
            yield str(about.get("case_id") or folder.name), _texts(about.get("decisions"))


def _training(folder: Path) -> TrainingResult | None:
    if not any((folder / name).is_file() for name in ("metrics.json", "MODEL_CARD.md")):
        return None
    metrics, card = _content(folder / "metrics.json"), folder / "MODEL_CARD.md"
    return TrainingResult(
        epochs=tuple(metrics.get("epochs") or ()),
        validation=tuple(metrics.get("validation") or ()),
        config=_content(folder / "config.json"),
        card=card.read_text(encoding="utf-8", errors="replace") if card.is_file() else "",
    )


def _egfr_validation(folder: Path) -> dict[str, Any]:
    """Read the validation, settings and plots of an EGFR model; nothing where it was not validated."""
    if not (folder / "validation.json").is_file():
        return {}
    return {
        "validation": _content(folder / "validation.json"),
        "egfr_config": _content(folder / "config.json"),
        "plots": _pictures(folder),
    }


def _records(run: Path, leave_out: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    # Sorted: folders list their files in any order, and the same run must give the same page.
    for path in sorted(run.rglob("*.run.json")):
        # Drafts of files being written are hidden; pages of other runs say nothing about this one.
        if path.resolve() != leave_out.resolve() and not path.name.startswith("."):
            record = _content(path)
            if record.get("verb") != "report":
                yield path.relative_to(run).as_posix(), record


def _pictures(folder: Path) -> tuple[Path, ...]:
    return tuple(each for each in _sorted(folder) if each.suffix == ".png" and not each.name.startswith("."))


def _sorted(folder: Path) -> list[Path]:
    return sorted(folder.iterdir()) if folder.is_dir() else []


def _rows(path: Path) -> tuple[Row, ...]:
    if not path.is_file():
        return ()
    table = read_text_table(path)
    columns = [str(name) for name in table.columns]
    return tuple(dict(zip(columns, map(str, row), strict=True)) for row in table.itertuples(index=False))


def _content(path: Path) -> dict[str, Any]:
    if not path.is_file():
        return {}
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise CaseError(path, "is not JSON", "run the command that wrote it again") from error
    if not isinstance(content, dict):
        raise CaseError(path, "holds no named values", "run the command that wrote it again")
    return content


def _texts(values: Any) -> tuple[str, ...]:
    return tuple(str(value) for value in values) if isinstance(values, list) else ()


def find_ct_cases(run: Path, cases: Path | None = None) -> list[Case]:
    """Find the cases of a run; empty where none has a CT.

    Args:
        run: Folder of a run, of cases, of segmented cases, of one case or of one segmented case.
        cases: Folder of the cases; else they are searched in the run, beside it, and in the source that a
            cohort run recorded.

    Raises:
        CaseError: `cases`, or a manifest that was found, cannot be used.
    """
    found = find_cases(cases) if cases else next(_sources(run), [])
    # The folder of one segmented case holds no CT; its case is found by the name of the folder.
    if (run / MASK).is_file() and not is_case_source(run):
        found = [case for case in found if case.case_id == run.resolve().name]
    return found if any(case.ct_path.is_file() for case in found) else []


def find_masks(segmented: Path) -> dict[str, Path]:
    """Find the lesion masks of segmented cases, by case id."""
    if (segmented / "lesion.run.json").is_file():
        return {segmented.resolve().name: segmented / MASK} if (segmented / MASK).is_file() else {}
    folders = (each for each in sorted(segmented.iterdir()) if (each / "lesion.run.json").is_file())
    return {each.name: each / MASK for each in folders if (each / MASK).is_file()}


def cohort_setting(run: Path, name: str) -> Path | None:
    """Return a folder that a cohort run was started with, if it still exists; of several models the first."""
    try:
        value = json.loads((run / COHORT_SETTINGS).read_text(encoding="utf-8")).get(name)
    except (OSError, ValueError, AttributeError):
        return None
    value = value[0] if isinstance(value, list) and value else value
    return Path(value) if isinstance(value, str) and Path(value).exists() else None


def _sources(run: Path) -> Iterator[list[Case]]:
    """Find folders of cases in a run, and above it where the run is `segmented` or a case of it."""
    above = run.resolve().parent
    places = [run, run / "cases", run / "segmented" / "cases", cohort_setting(run, "source")]
    if (run / "lesion.run.json").is_file():
        places += [above / "cases", above.parent / "cases", above.parent / "segmented" / "cases"]
    elif run.resolve().name == "segmented":
        places.append(above / "cases")
    for place in places:
        if place and ((place / MANIFEST).is_file() or (place / "ct.nii.gz").is_file()):
            yield find_cases(place)
