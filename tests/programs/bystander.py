# SPDX-License-Identifier: MIT
"""bystander.py: lock a page, and print as JSON what a program can see of how it was started."""

import contextlib
import json
import os
import resource
import signal
import sys
from pathlib import Path

from mlockwipe.linux import mm, mman

if "locks" in sys.argv[1:]:
    page = mm.mmap(0, mm.PAGE_SIZE, mman.PROT_READ | mman.PROT_WRITE, mman.MAP_PRIVATE | mman.MAP_ANONYMOUS)
    mm.mlock(page, mm.PAGE_SIZE)

status = dict(line.split(":\t", 1) for line in Path("/proc/self/status").read_text().splitlines() if ":\t" in line)
umask = os.umask(0)
os.umask(umask)
descriptors = {}
for name in os.listdir("/proc/self/fd"):
    with contextlib.suppress(FileNotFoundError):  # the listing's own
        descriptors[int(name)] = os.readlink(f"/proc/self/fd/{name}")
json.dump(
    {
        "arguments": sys.argv[1:],
        "working directory": str(Path.cwd()),
        "umask": umask,
        "environment": dict(os.environ),
        "limits": {
            name: resource.getrlimit(getattr(resource, name)) for name in dir(resource) if name.startswith("RLIMIT")
        },
        "descriptors": descriptors,
        "signals": {name: status[name] for name in ("SigBlk", "SigIgn", "SigCgt", "SigPnd", "ShdPnd")},
        "SIGPIPE": str(signal.getsignal(signal.SIGPIPE)),
        "ids": {name: status[name] for name in ("Uid", "Gid", "Groups")},
        "capabilities": {name: status[name] for name in status if name.startswith("Cap")},
        "processors": sorted(os.sched_getaffinity(0)),
        "nice": os.nice(0),
        "leads its group": os.getpgrp() == os.getpid(),
        "leads its session": os.getsid(0) == os.getpid(),
        "dumpable": os.access("/proc/self/mem", os.R_OK),
    },
    sys.stdout,
)
