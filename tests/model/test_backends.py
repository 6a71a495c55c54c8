"""The tests of the engines, in a process of their own."""

import subprocess
import sys
from pathlib import Path

TESTS = Path(__file__).with_name("backends_apart.py")


def test_engines_in_a_process_of_their_own():
    """OpenVINO 2026.4 stays loaded, and a process that used it dies when it later starts data workers."""
    words = (sys.executable, "-m", "pytest", "-n", "0", str(TESTS))
    done = subprocess.run(words, cwd=TESTS.parents[2], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
