# SPDX-License-Identifier: MIT
"""`mlockwipe attach`: programs that run already, named by their pids or found by a policy."""
