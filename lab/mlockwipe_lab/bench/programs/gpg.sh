#!/bin/sh
# SPDX-License-Identifier: MIT
# A key manager's day: sign, encrypt and decrypt 5 times with the key in $GNUPGHOME, and end the agent.
set -eu

gpg="gpg --batch --quiet --no-tty --trust-model always --no-auto-check-trustdb --no-permission-warning"
for _ in 1 2 3 4 5; do
	echo 'a short text' | $gpg --recipient bench --sign --encrypt | $gpg --decrypt 2>/dev/null | grep -q 'a short text'
done
gpg-connect-agent --no-autostart killagent /bye >/dev/null
