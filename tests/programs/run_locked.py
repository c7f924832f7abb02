# SPDX-License-Identifier: MIT
"""run_locked.py MODULE ...: run test modules of CPython in an interpreter that has locked its memory, future too."""

import runpy
import sys

from mlockwipe.linux import mm, mman

mm.mlockall(mman.MCL_CURRENT | mman.MCL_FUTURE)
sys.argv = ["test", "-v", *sys.argv[1:]]
runpy.run_module("test", run_name="__main__", alter_sys=True)
