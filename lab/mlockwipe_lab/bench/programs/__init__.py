# SPDX-License-Identifier: MIT
"""What is measured: C programs, scripts and services. Those for a guest import nothing but mlockwipe."""

from pathlib import Path

PROGRAMS = Path(__file__).parent
