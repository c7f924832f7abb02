# SPDX-License-Identifier: MIT
"""The evidence: what the contract promises, judged in virtual machines by a search of all of their memory, and what
its carriers cost."""
