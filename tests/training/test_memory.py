import subprocess
import sys

from gen2real.training.memory import keep_freed_memory

PROGRAM = """
import resource
import sys

import torch

from gen2real.training.memory import keep_freed_memory

torch.set_num_threads(1)
if sys.argv[1] == "keep":
    assert keep_freed_memory()


def update() -> None:
    for _ in range(4):
        torch.ones(12_000_000)  # 48 MB: above 32 MB glibc never keeps a block by itself


update()
update()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(5):
    update()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def test_freed_memory_is_used_again():
    if not sys.platform.startswith("linux"):
        assert not keep_freed_memory()
        return
    faults = {
        mode: int(
            subprocess.run([sys.executable, "-c", PROGRAM, mode], capture_output=True, text=True, check=True).stdout
        )
        for mode in ("plain", "keep")
    }
    assert faults["keep"] < faults["plain"] / 10
