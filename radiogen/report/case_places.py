"""Find the CTs behind a run: the case folders that its results were made from."""

import json
from collections.abc import Iterator
from pathlib import Path

from radiogen.io.cases import MANIFEST, Case, find_cases, is_case_source

MASK = "lesion.nii.gz"
REMEMBERED = Path(".cohort") / "settings.json"  # what `radiogen cohort run` writes down


def find_ct_cases(run: Path, cases: Path | None = None) -> list[Case]:
    """The cases of a run that are at hand; empty where none has a CT.

    Args:
        run: Folder of a run, of cases, of segmented cases, of one case or of one segmented case.
        cases: Where the cases are; else they are looked for in the run, beside it, and where a cohort run
            says that it took them from.

    Raises:
        CaseError: `cases`, or a manifest that was found, cannot be used.
    """
    found = find_cases(cases) if cases else next(_sources(run), [])
    if (run / MASK).is_file() and not is_case_source(run):  # the folder of one segmented case
        found = [case for case in found if case.case_id == run.resolve().name]
    return found if any(case.ct_path.is_file() for case in found) else []


def find_masks(segmented: Path) -> dict[str, Path]:
    """The lesion masks that were made, by case id."""
    if (segmented / "lesion.run.json").is_file():
        return {segmented.resolve().name: segmented / MASK} if (segmented / MASK).is_file() else {}
    folders = (each for each in sorted(segmented.iterdir()) if (each / "lesion.run.json").is_file())
    return {each.name: each / MASK for each in folders if (each / MASK).is_file()}


def remembered(run: Path, name: str) -> Path | None:
    """A folder that a cohort run was started with, if it is still there; of several models the first."""
    try:
        said = json.loads((run / REMEMBERED).read_text(encoding="utf-8")).get(name)
    except (OSError, ValueError, AttributeError):
        return None
    said = said[0] if isinstance(said, list) and said else said
    return Path(said) if isinstance(said, str) and Path(said).exists() else None


def _sources(run: Path) -> Iterator[list[Case]]:
    above = run.resolve().parent
    places = [run, run / "cases", run / "segmented" / "cases", remembered(run, "source")]
    places += [above / "cases", above.parent / "cases", above.parent / "segmented" / "cases"]
    if not (run / "lesion.run.json").is_file():
        places = places[:5] if run.resolve().name == "segmented" else places[:4]
    for place in places:
        if place and ((place / MANIFEST).is_file() or (place / "ct.nii.gz").is_file()):
            yield find_cases(place)
