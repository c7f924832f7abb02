# SPDX-License-Identifier: MIT
"""Who supervises: the processes of `mlockwipe run`, and the loop of `mlockwipe attach`."""
