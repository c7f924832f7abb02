# SPDX-License-Identifier: MIT
"""The lab: the contract's cases in virtual machines, judged by a search of all of their memory."""
