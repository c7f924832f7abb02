# SPDX-License-Identifier: MIT
"""The contract, put to the test: the cases, the witness, and the judge."""
