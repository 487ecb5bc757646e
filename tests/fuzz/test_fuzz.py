import subprocess
import sys

import pytest


@pytest.mark.campaign
@pytest.mark.timeout(300)
def test_two_minutes_of_fuzzing_find_nothing():
    pytest.importorskip("atheris", reason="atheris is built for Linux on x86-64")
    done = subprocess.run(
        [sys.executable, "-m", "tests.fuzz", "120"], capture_output=True, text=True, timeout=240, check=False
    )
    assert done.returncode == 0, done.stderr[-4_000:]
    assert "stat::number_of_executed_units" in done.stderr
