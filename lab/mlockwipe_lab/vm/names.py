# SPDX-License-Identifier: MIT
"""What a machine and the program in its guest call the devices between them."""

PORT = "mlockwipe"  # a virtio port
CACHED = "cached"  # a second 9p share of /, which the guest may mount with a cache, as the root is not
