#!/bin/sh
# SPDX-License-Identifier: MIT
# gpg_loop.sh COUNT: sign and encrypt a short text COUNT times with the key in $GNUPGHOME, by an agent started here.
set -eu

trap 'gpgconf --kill gpg-agent' EXIT
once() {
	echo 'a short text' | gpg --batch --quiet --trust-model always --recipient bench --sign --encrypt >/dev/null
}

once # starts the agent
start=$(date +%s%N)
for _ in $(seq "$1"); do
	once
done
end=$(date +%s%N)
echo "gpg $(((end - start) / $1))"
