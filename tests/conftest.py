"""Tests reach no network and use one thread a process, wherever they run: sums then come out the same."""

import atexit
import gc
import os
import shutil
import signal
import tempfile

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["CUDA_VISIBLE_DEVICES"] = ""  # the same figures with a GPU and without
os.environ["OMP_NUM_THREADS"] = "1"  # for the processes that tests start
os.environ["XDG_CACHE_HOME"] = tempfile.mkdtemp()  # what one machine has measured is no part of a test
atexit.register(shutil.rmtree, os.environ["XDG_CACHE_HOME"], ignore_errors=True)
os.environ["TILTLAB_TESTS_PID"] = str(os.getpid())  # before any worker starts: it is never one to be killed

# A job that a shell has put in the background ignores Ctrl-C, and so would all that it starts.
signal.signal(signal.SIGINT, signal.default_int_handler)
signal.signal(signal.SIGHUP, signal.SIG_DFL)

import pytest  # noqa: E402
import torch  # noqa: E402

torch.set_num_threads(1)
gc.set_threshold(50_000, 20, 20)


@pytest.fixture(scope="module", autouse=True)
def _what_is_there_is_no_garbage() -> None:
    """What is imported or kept by now stays: collections of garbage, one before each job, then look through what the
    module's own tests make, and not through all of it again. That took a third of all time."""
    gc.collect()
    gc.freeze()
