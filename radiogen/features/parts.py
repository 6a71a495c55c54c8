"""Keep what is measured of each case until the table is whole, so that a killed run goes on."""

import hashlib
import json
from pathlib import Path
from typing import Any

from radiogen import __version__
from radiogen.features.case import CaseRows
from radiogen.io.cases import Case
from radiogen.provenance import file_sha256, write_json


def key_of(case: Case, mask: Path, how: dict[str, Any]) -> str:
    """What decides the rows of a case: its files, the options, the model, this radiogen."""
    files = [path for path in (case.ct_path, case.lungs_path, mask) if path.is_file()]
    said = {"files": [file_sha256(path) for path in files], "how": how, "radiogen": __version__}
    said |= {"case": case.case_id, "patient": case.patient_id}
    return hashlib.sha256(json.dumps(said, sort_keys=True).encode()).hexdigest()


def read_part(folder: Path, case: Case, key: str) -> CaseRows | None:
    """The rows of a case that an earlier run measured in the same way; None where there are none."""
    try:
        part = json.loads((folder / f"{case.case_id}.json").read_text(encoding="utf-8"))
        return (
            CaseRows(part["rows"], part["repeats"], part["patches"], part["decisions"])
            if part["key"] == key
            else None
        )
    except (OSError, ValueError, KeyError, TypeError):
        return None


def write_part(folder: Path, case: Case, key: str, rows: CaseRows) -> None:
    """Keep the rows of a case."""
    content = {
        "key": key,
        "rows": rows.rows,
        "repeats": rows.repeats,
        "patches": rows.patches,
        "decisions": rows.decisions,
    }
    write_json(folder / f"{case.case_id}.json", content)
