"""Tests run in several processes at once; each gets its share of the cores, and so do the programs it starts."""

import os

processes = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
if processes > 1:  # before torch is imported, which reads it then
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // processes)))
os.environ.setdefault("OMP_WAIT_POLICY", "passive")  # threads that wait shall not take the others' time
