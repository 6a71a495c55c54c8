"""Write the colour table that 3D Slicer shows a mask of labels with."""

import re
from collections.abc import Mapping
from pathlib import Path

from radiogen.provenance import write_text

COLOURS = ((230, 75, 53), (77, 187, 213), (0, 160, 135), (60, 84, 136), (243, 155, 127), (132, 145, 180))


def colour_of(label: int) -> tuple[int, int, int]:
    """Red, green, blue of a label from 1; the same in every format."""
    return COLOURS[(label - 1) % len(COLOURS)]


def write_colour_table(names: Mapping[int, str], path: Path) -> None:
    """Write a `.ctbl`: number, name, red, green, blue, opacity a line.

    Args:
        names: By label, from 1; what is no word character becomes an underscore, as Slicer wants it.
        path: The file.
    """
    lines = [
        f"# Color table file {path.name}",
        f"# {max(names, default=0) + 1} values",
        "0 background 0 0 0 0",
    ]
    for label, name in sorted(names.items()):
        word = re.sub(r"\W+", "_", name, flags=re.ASCII).strip("_") or f"label_{label}"
        lines.append(f"{label} {word} {' '.join(map(str, colour_of(label)))} 255")
    write_text(path, "\n".join(lines) + "\n")
