# SPDX-License-Identifier: MIT
"""Which secrets a program left in its locked memory, or lost from it: what the supervisor saw, told by call stack."""

LEFT = 3  # the exit status of --fail when anything was left
FINDINGS = "MLOCKWIPE_FINDINGS"  # in the environment of what is audited: the file, which grows as things are found
