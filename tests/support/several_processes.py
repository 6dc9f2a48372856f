"""Work done by several processes that have each other's word, as torchrun would start them."""

import datetime
import os
import pickle
import signal
import sys
import tempfile
import time
import traceback
import warnings
from pathlib import Path

import torch
import torch.distributed as dist


class Failed(Exception):
    """What a process raised: the kind of its error and its words."""

    def __init__(self, kind, words):
        super().__init__(kind, words)
        self.kind, self.words = kind, words


def started(work, size, folder, timeout=120):
    """Fork so many processes of one group, which call ``work(rank)``; their ids."""
    store = tempfile.mktemp(dir=folder)
    ids = []
    for rank in range(size):
        sys.stdout.flush()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # of threads, which stay behind
            child = os.fork()
        if child:
            ids.append(child)
            continue
        code = 1
        try:
            torch.set_num_threads(1)
            wait = datetime.timedelta(seconds=timeout)
            dist.init_process_group(
                "gloo", init_method=f"file://{store}", rank=rank, world_size=size, timeout=wait
            )
            try:
                found = work(rank)
            except Exception as error:
                traceback.print_exc()
                found = Failed(type(error).__name__, str(error))
            Path(folder, f"rank{rank}").write_bytes(pickle.dumps(found))
            code = 0
        finally:
            os._exit(code)
    return ids


def ended(ids, folder, seconds=120):
    """What each process returned or raised; None of one that was killed."""
    left, found, until = dict(enumerate(ids)), [None] * len(ids), time.monotonic() + seconds
    while left:
        for rank, process in list(left.items()):
            done, status = os.waitpid(process, os.WNOHANG)
            if not done:
                continue
            del left[rank]
            if os.waitstatus_to_exitcode(status) == 0:
                found[rank] = pickle.loads(Path(folder, f"rank{rank}").read_bytes())
        if left and time.monotonic() > until:
            for process in left.values():
                os.kill(process, signal.SIGKILL)
                os.waitpid(process, 0)
            raise TimeoutError(f"ranks {sorted(left)} did not end")
        time.sleep(0.01)
    return found


def on_ranks(work, size, folder):
    """What each of so many processes returns; an error that one raised is its result."""
    return ended(started(work, size, folder), folder)
