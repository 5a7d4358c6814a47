"""Workers end with the process that they work for, however that ends."""

import subprocess
import sys
from pathlib import Path

WORKING = """
import time
from prunejax.workers import workers
if __name__ == "__main__":
    with workers(2) as each:
        assert list(each(abs, [-1, 2, -3])) == [1, 2, 3]
        waiting = each(time.sleep, [600, 600])
        print("working", flush=True)
        time.sleep(600)
"""


def test_workers_end_when_the_process_that_they_work_for_is_killed(tmp_path: Path) -> None:
    program = tmp_path / "working.py"
    program.write_text(WORKING)
    other = subprocess.Popen([sys.executable, program], stdout=subprocess.PIPE, text=True)
    assert other.stdout.readline() == "working\n"
    other.kill()
    other.communicate(timeout=60)  # the workers have that pipe, too: it ends when they have
