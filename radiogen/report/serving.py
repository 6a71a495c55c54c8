"""Serve the viewer of one case on this machine only: a page, its volumes, and nothing else.

Volumes as they are do not fit a page, and a page from disk may not read files beside it. So they are served
from memory. A secret in the path keeps other users of a shared machine out, the check of the Host header any
web page that has its name resolve to this machine. No folder lies behind the server, so none can be left.
"""

import re
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import SimpleITK as sitk

from radiogen import __version__
from radiogen.errors import OutputError, VolumeError
from radiogen.io.cases import find_cases
from radiogen.io.nifti import is_volume_file, read_mask, read_volume
from radiogen.report.figures import template
from radiogen.report.qc import masks_of
from radiogen.report.reading import MASK, find_ct_cases
from radiogen.report.stills import draw_still
from radiogen.report.viewer import make_viewer_of_whole
from radiogen.volume import same_grid

LOOPBACK = "127.0.0.1"
UNSAFE = re.compile(r"[^A-Za-z0-9_-]")  # of a file name, in an address
HTML, PACKED = "text/html; charset=utf-8", "application/octet-stream"


@dataclass(frozen=True)
class ServedView:
    """A CT, its masks by name, and the title of their page."""

    title: str
    ct: sitk.Image
    masks: Mapping[str, sitk.Image]


def read_view(paths: Sequence[Path]) -> ServedView:
    """Read a case folder, the folder of a segmented case, or a CT file and masks on its grid.

    Args:
        paths: One folder; or volume files, the CT first.

    Raises:
        RadiogenError: There is not exactly one CT, a file is damaged, or a mask does not lie on the CT.
    """
    if len(paths) == 1 and paths[0].is_dir():
        return _read_folder(paths[0])
    wrong = next((path for path in paths if not path.is_file() or not is_volume_file(path)), None)
    if wrong is not None:
        raise VolumeError(
            wrong, "is not a volume file", "give one case folder, or a CT and its masks as NIfTI"
        )
    ct, masks = read_volume(paths[0]), dict[str, sitk.Image]()
    for path in paths[1:]:
        mask = read_mask(path)
        if not same_grid(ct, mask):
            raise VolumeError(path, f"does not lie on the grid of {paths[0].name}", "resample it to the CT")
        name = UNSAFE.sub("_", path.name.partition(".")[0])
        # Names are addresses of the server: `ct` is taken, and two files may have one name.
        masks[f"{name}-{len(masks) + 1}" if name in (*masks, "ct") else name] = mask
    return ServedView(paths[0].name, ct, masks)


def _read_folder(folder: Path) -> ServedView:
    cases = find_ct_cases(folder) or find_cases(folder)
    if len(cases) != 1:
        hint = f"give the folder of one, such as {folder / cases[0].case_id}"
        raise VolumeError(folder, f"holds {len(cases)} cases", hint)
    is_result = (folder / "lesion.run.json").is_file()
    return ServedView(
        cases[0].case_id, cases[0].ct(), masks_of(cases[0], folder / MASK if is_result else None)
    )


class ViewServer(ThreadingHTTPServer):
    """A server of one view on the loopback address, under a path that nobody can guess."""

    def __init__(self, view: ServedView, port: int = 0) -> None:
        """Bind to 127.0.0.1.

        Args:
            view: CT and masks.
            port: 0 takes a free one.

        Raises:
            OutputError: The port is taken.
        """
        self.root = f"/{secrets.token_urlsafe(24)}/"
        try:
            super().__init__((LOOPBACK, port), _Handler)
        except OSError as error:
            wrong = f"cannot be used: {error.strerror}"
            raise OutputError(f"port {port}", wrong, "take another --port, or none for a free one") from error
        self.hosts = {f"{name}:{self.server_address[1]}" for name in (LOOPBACK, "localhost")}
        self.answers = self._answers(view)

    @property
    def address(self) -> str:
        """The address to open in a browser."""
        return f"http://{LOOPBACK}:{self.server_address[1]}{self.root}"

    def _answers(self, view: ServedView) -> dict[str, tuple[str, bytes]]:
        """Return all that is served: kind and content by path."""
        viewer = make_viewer_of_whole(view.ct, view.masks, self.root)
        still = draw_still(view.ct, view.masks, view.title)
        page = template("view.html.j2").render(
            title=view.title, viewer=viewer, still=still, version=__version__
        )
        files = {f"{self.root}{name}.nii.gz": (PACKED, content) for name, content in viewer.volumes.items()}
        return {self.root: (HTML, page.encode("utf-8")), **files}


class _Handler(BaseHTTPRequestHandler):
    """One request: a foreign host is refused with 403, an unknown path with 404."""

    server: ViewServer
    server_version, sys_version = "radiogen", ""
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        # DNS rebinding: a web page that has a name of its own point to this machine sends that name.
        if self.headers.get("Host") not in self.server.hosts:
            self._answer(403, "text/plain", b"wrong host\n")
            return
        answer = self.server.answers.get(self.path)
        if answer is None:
            self._answer(404, "text/plain", b"not here\n")
            return
        self._answer(200, *answer)

    def _answer(self, status: int, kind: str, content: bytes) -> None:
        self.send_response(status)
        for name, value in (
            ("Content-Type", kind),
            ("Content-Length", str(len(content))),
            # Scans of a patient do not stay in the cache of the browser.
            ("Cache-Control", "no-store"),
            ("X-Content-Type-Options", "nosniff"),
            ("Referrer-Policy", "no-referrer"),
            ("Cross-Origin-Resource-Policy", "same-origin"),
        ):
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, format: str, *args: object) -> None:
        """Log nothing: the address is a secret."""
