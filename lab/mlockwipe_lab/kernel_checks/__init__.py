# SPDX-License-Identifier: MIT
"""What a kernel developer asks of the patches and of the module: style, builds, mm's own tests, stress."""

from pathlib import Path

PROGRAMS = Path(__file__).parent / "programs"
