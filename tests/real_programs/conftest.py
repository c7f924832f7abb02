# SPDX-License-Identifier: MIT
"""What several tests of real programs need."""

import os
import resource

import pytest


@pytest.fixture
def room_to_lock() -> None:
    """An interpreter that locks all of its memory must be allowed to."""
    _, limit = resource.getrlimit(resource.RLIMIT_MEMLOCK)
    if os.geteuid() != 0 and limit != resource.RLIM_INFINITY and limit < 512 << 20:
        pytest.skip(f"an interpreter can't lock itself within RLIMIT_MEMLOCK ({limit} bytes): raise it, or be root")
