# SPDX-License-Identifier: MIT
"""Tasks that are traced: how they come to be, stop, execute and end, for whoever supervises them."""
