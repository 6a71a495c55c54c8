"""The server of `radiogen view`: on this machine only, to whom it was told, nothing but what it was given."""

import http.client
import os
import re
import signal
import subprocess
import sys
import threading
from urllib.parse import urlsplit

import numpy as np
import pytest
from browser import crosshair_mm, open_page, wait_for_viewer

from radiogen.errors import OutputError, RadiogenError, VolumeError
from radiogen.io.cases import find_cases
from radiogen.io.nifti import read_volume, write_volume
from radiogen.report.serving import ViewServer, read_view
from radiogen.volume import Box as VoxelBox
from radiogen.volume import crop


@pytest.fixture(scope="module")
def case(made_cases):
    return find_cases(made_cases)[0]


@pytest.fixture(scope="module")
def server(case):
    with ViewServer(read_view([case.folder])) as serving:
        thread = threading.Thread(target=serving.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        yield serving
        serving.shutdown()
        thread.join()


def ask(server, path, host=None):
    connection = http.client.HTTPConnection(*server.server_address, timeout=20)
    headers = {"Host": host} if host else {}
    connection.request("GET", path, headers=headers)
    answer = connection.getresponse()
    content = answer.read()
    connection.close()
    return answer.status, content


def test_it_listens_on_this_machine_only(server):
    assert server.server_address[0] == "127.0.0.1"
    assert server.address.startswith(f"http://127.0.0.1:{server.server_address[1]}/")


def test_the_address_holds_a_token_that_is_new_each_time(server, case):
    with ViewServer(read_view([case.ct_path])) as other:
        assert other.root != server.root and len(other.root) > 30


def test_it_gives_the_page_and_the_volumes_as_they_are(server, case, tmp_path):
    status, page = ask(server, server.root)
    assert status == 200 and b"Not for clinical use" in page
    status, packed = ask(server, f"{server.root}ct.nii.gz")
    (tmp_path / "ct.nii.gz").write_bytes(packed)
    assert status == 200
    assert np.array_equal(read_volume(tmp_path / "ct.nii.gz"), case.ct())


@pytest.mark.parametrize(
    "path", ["/", "/ct.nii.gz", "{root}case.json", "{root}../", "{root}ct.nii.gz?x", "{root}%2e"]
)
def test_it_gives_nothing_else(server, path):
    assert ask(server, path.format(root=server.root))[0] == 404


@pytest.mark.parametrize("host", ["evil.example", "evil.example:{port}", "127.0.0.1", "localhost:1"])
def test_a_name_that_was_bent_to_this_machine_is_refused(server, host):
    port = server.server_address[1]
    assert ask(server, server.root, host.format(port=port))[0] == 403
    assert ask(server, server.root, f"localhost:{port}")[0] == 200


def test_the_served_page_starts_in_a_browser(browser, server):
    watched = open_page(browser, server.address)
    wait_for_viewer(watched)
    assert watched.page.evaluate("document.getElementById('viewer').className") == "viewer ready"
    assert watched.complaints == []
    asked = {urlsplit(url).netloc for url in watched.requests if not url.startswith("data:")}
    assert asked == {f"127.0.0.1:{server.server_address[1]}"}
    watched.page.close()


WITHOUT_CLIPBOARD = "Object.defineProperty(navigator, 'clipboard', { value: undefined })"


def test_a_click_copies_the_place_of_the_cross_as_segment_takes_it(browser, server, case):
    watched = open_page(browser, server.address, permissions=["clipboard-read", "clipboard-write"])
    wait_for_viewer(watched)
    before = crosshair_mm(watched)
    size = watched.page.locator("#viewer-planes").bounding_box()
    # In the axial plane, which takes the left part of the canvas.
    watched.page.click("#viewer-planes", position={"x": size["width"] / 4, "y": size["height"] / 2})
    watched.page.wait_for_selector("#viewer-copied:has-text(' copied')", state="attached")
    text = watched.page.evaluate("navigator.clipboard.readText()")
    point = tuple(float(part) for part in text.split(","))
    assert point == pytest.approx(crosshair_mm(watched), abs=0.051)
    assert np.linalg.norm(np.subtract(point, before)) > 1
    x, y, z = point
    assert f"x {x:.1f}  y {y:.1f}  z {z:.1f} mm (LPS)" in watched.page.inner_text("#viewer-at")
    assert watched.page.inner_text("#viewer-copied") == f"{text} copied"
    index = case.ct().TransformPhysicalPointToIndex(point)
    assert all(0 <= at < n for at, n in zip(index, case.ct().GetSize(), strict=True))
    watched.page.close()


def test_where_the_clipboard_is_closed_the_place_is_shown(browser, server):
    watched = open_page(browser, server.address)
    watched.page.add_init_script(WITHOUT_CLIPBOARD)
    watched.page.reload()
    wait_for_viewer(watched)
    watched.page.click("#viewer-planes", position={"x": 60, "y": 70})
    watched.page.wait_for_function("document.getElementById('viewer-copied').textContent.length > 0")
    assert re.fullmatch(r"(-?\d+\.\d,){2}-?\d+\.\d", watched.page.inner_text("#viewer-copied"))
    assert watched.complaints == []
    watched.page.close()


def test_a_ct_and_masks_are_named_by_their_files(case, tmp_path):
    strange = tmp_path / 'my "mask" <1>.nii.gz'
    write_volume(case.lesion(), strange)
    shown = read_view([case.ct_path, strange, case.lungs_path])
    assert list(shown.masks) == ["my__mask___1_", "lungs"] and shown.title == "ct.nii.gz"


def test_a_mask_of_another_grid_and_many_cases_are_refused(case, made_cases, tmp_path):
    small = crop(case.lesion(), VoxelBox((0, 0, 0), (8, 8, 8)))
    write_volume(small, tmp_path / "small.nii.gz")
    with pytest.raises(VolumeError, match="does not lie on the grid"):
        read_view([case.ct_path, tmp_path / "small.nii.gz"])
    with pytest.raises(VolumeError, match="holds 4 cases"):
        read_view([made_cases])
    with pytest.raises(VolumeError, match="is not a volume file"):
        read_view([made_cases / "manifest.csv"])
    with pytest.raises(RadiogenError, match="no manifest"):
        read_view([tmp_path])


def test_a_port_that_is_taken_is_refused(server, case):
    with pytest.raises(OutputError, match="cannot be used"):
        ViewServer(read_view([case.ct_path]), server.server_address[1])


def test_ctrl_c_ends_it_cleanly(case):
    command = [sys.executable, "-m", "radiogen.cli.main", "view", str(case.folder), "--no-browser"]
    running = subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    address = running.stdout.readline().strip()
    assert address.startswith("http://127.0.0.1:")
    assert running.stderr.readline().strip() == "Ctrl-C ends it"
    running.send_signal(signal.SIGINT)
    out, err = running.communicate(timeout=60)
    assert running.returncode == 0 and out == "" and err == ""
