# SPDX-License-Identifier: MIT
"""`mlockwipe lab verify`: every case of the contract under every carrier on every kernel."""
