# SPDX-License-Identifier: MIT
"""`make bench`: what the supervisor, the audit and the library cost on this machine, as ratios."""
