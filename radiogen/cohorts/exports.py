"""Hand cases to other tools: MONAI, nnU-Net, or whatever reads BIDS."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from radiogen.cohorts.export_bids import lay_bids
from radiogen.cohorts.export_datalist import lay_datalist
from radiogen.cohorts.export_nnunet import lay_nnunet
from radiogen.cohorts.export_parts import ExportCases, ExportOptions, divide_cases
from radiogen.errors import ConfigError
from radiogen.io.cases import MANIFEST
from radiogen.provenance import RunRecord, leave_no_trace, new_folder

Layout = Callable[[ExportCases, Path, Path, ExportOptions], list[Path]]
LAYOUTS: dict[str, Layout] = {"monai-datalist": lay_datalist, "nnunet": lay_nnunet, "bids-like": lay_bids}


@dataclass(frozen=True)
class Exported:
    """What was laid out: the files that describe it, and who is in it."""

    files: tuple[Path, ...]
    train: int
    test: int
    without_outline: tuple[str, ...]


def export_cases(cases: Path, out: Path, layout: str, options: ExportOptions | None = None) -> Exported:
    """Lay cases out for another tool, in a new folder, with the folds that `radiogen train` would draw.

    Args:
        cases: Folder of cases.
        out: New folder.
        layout: A name in `LAYOUTS`.
        options: See `ExportOptions`.

    Raises:
        ConfigError: No layout of that name, or fewer patients than folds.
        CaseError: The cases do not fit.
        OutputError: The folder is there already.
    """
    if layout not in LAYOUTS:
        raise ConfigError(f"--to {layout}", "is no layout", f"there are {', '.join(LAYOUTS)}")
    options = options or ExportOptions()
    said = {"to": layout, **options.model_dump(exclude={"seed"})}
    record = RunRecord("export", said, seed=options.seed, inputs=[cases / MANIFEST])
    divided = divide_cases(cases, options)
    with leave_no_trace(out), new_folder(out) as draft:
        files = [path.relative_to(draft) for path in LAYOUTS[layout](divided, draft, out, options)]
    written = tuple(out / path for path in files)
    record.finish(out, written)
    return Exported(written, len(divided.train), len(divided.test), tuple(divided.without_outline))
