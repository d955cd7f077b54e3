"""A whole system whose stages only sleep: real processes, real Ray and real gRPC, and a job takes seconds.

`system.py` starts and kills the processes. `coordinator.py` and `stage.py` are their main modules: the real ones, with
a death of their own choosing added from outside (`deaths.py`). `work.py` is what the stages do. `ledger.py` keeps what
they really did, out of reach of anything that is killed.
"""
