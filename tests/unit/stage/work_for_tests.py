"""Work functions that the run tests start in real child processes."""

import os
import subprocess
import sys
import time

from cutoff.artifacts import publishing
from cutoff.errors import DiskFull
from cutoff.process import tethered


def count(request, run):
    with run.report.phase("counting", "step", 3) as counter:
        for step in (1, 2, 3):
            counter.at(step, loss=1.0 / step)
    return {"answer": 42, "visible": os.environ.get("CUDA_VISIBLE_DEVICES", "unset")}


def refuse(request, run):
    raise DiskFull("no room", "make some")


def crash(request, run):
    raise ZeroDivisionError("a bug")


def hang(request, run):
    """Writes half a file, starts a program, and waits for ever."""
    subprocess.Popen(tethered([sys.executable, "-c", "import time; time.sleep(600)"]))
    with publishing(run.folder / "model.gguf") as partial:
        partial.write_bytes(b"half")
        run.report.log("hanging")
        time.sleep(600)
    return {}


def die_in_mid_sentence(request, run):
    """Ends without a word while the service waits for the rest of a message."""
    run.report.log("x" * 1000)
    for descriptor in range(3, 64):
        try:
            os.write(descriptor, (1000).to_bytes(4, "big") + b"half of it")
        except OSError:
            continue
    os._exit(1)


def hang_deaf(request, run):
    """Like hang, but deaf to SIGTERM: only SIGKILL ends it."""
    import signal

    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    return hang(request, run)
