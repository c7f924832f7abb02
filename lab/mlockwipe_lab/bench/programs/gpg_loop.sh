#!/bin/sh
# SPDX-License-Identifier: MIT
# gpg_loop.sh COUNT: sign and encrypt a short text COUNT times with the key in $GNUPGHOME, by an agent started here,
# then decrypt it COUNT times and verify its signature.
set -eu

trap 'gpgconf --kill gpg-agent' EXIT
text='a short text'
seal() {
	echo "$text" | gpg --batch --quiet --yes --trust-model always --recipient bench --output "$GNUPGHOME/sealed" \
		--sign --encrypt
}
unseal() {
	gpg --batch --quiet --trust-model always --decrypt "$GNUPGHOME/sealed" 2>"$GNUPGHOME/said"
}
timed() {
	start=$(date +%s%N)
	for _ in $(seq "$2"); do
		"$1" >/dev/null
	done
	end=$(date +%s%N)
	echo "$1 $(((end - start) / $2))"
}

seal # starts the agent
test "$(unseal)" = "$text"
grep -q 'Good signature' "$GNUPGHOME/said"
timed seal "$1"
timed unseal "$1"
