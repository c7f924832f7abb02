# SPDX-License-Identifier: MIT
"""What container runtimes need to hand their containers over to `mlockwipe serve`."""
