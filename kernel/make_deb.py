# SPDX-License-Identifier: MIT
"""python kernel/make_deb.py DIR: the Debian package mlockwipe-dkms, put into DIR.

The sources of the module, which DKMS builds for every kernel that is installed, and nothing else: the command
mlockwipe is a package of Python.
"""

import gzip
import hashlib
import os
import subprocess
import sys
import tempfile
from datetime import UTC, datetime
from email.utils import format_datetime
from pathlib import Path

from mlockwipe import __version__
from mlockwipe.kernel.module import sources

PACKAGE = "mlockwipe-dkms"
MAINTAINER = "mlockwipe maintainers <maintainers@users.noreply.r-seed-834f4785.example>"

CONTROL = f"""\
Package: {PACKAGE}
Version: {__version__}
Architecture: all
Maintainer: {MAINTAINER}
Installed-Size: {{size}}
Depends: dkms (>= 3.0.10)
Recommends: linux-headers-amd64
Section: kernel
Priority: optional
Description: zero mlocked memory when it is released (DKMS)
 The module init_mlocked_on_free zeroes anonymous memory that a program has
 locked with mlock and not unlocked when it is released: by munmap, exit, exec,
 or any death, SIGKILL included. So the keys of a program that was killed don't
 stay in free memory.
 .
 This package has the module's sources, which DKMS builds for Debian's kernels
 of Linux 6.1 and 6.12. The module is off until it is loaded and switched on.
"""

POSTINST = f"""\
#!/bin/sh
set -e
if [ "$1" = configure ]; then
	/usr/lib/dkms/common.postinst mlockwipe {__version__} "" "" "$2"
fi
"""

PRERM = f"""\
#!/bin/sh
set -e
case "$1" in
remove|upgrade|deconfigure)
	if dkms status mlockwipe/{__version__} | grep -q .; then
		dkms remove mlockwipe/{__version__} --all
	fi
	;;
esac
"""

COPYRIGHT = """\
Format: https://www.debian.org/doc/packaging-manuals/copyright-format/1.0/
Upstream-Name: mlockwipe

Files: *
Copyright: 2026 mlockwipe maintainers
License: GPL-2

License: GPL-2
 This program is free software; you can redistribute it and/or modify it under
 the terms of the GNU General Public License, version 2 only, as published by
 the Free Software Foundation.
 .
 On Debian systems its full text is in /usr/share/common-licenses/GPL-2.
"""

CHANGELOG = f"""\
mlockwipe-dkms ({__version__}) unstable; urgency=medium

  * The module init_mlocked_on_free for Debian's kernels of Linux 6.1 and 6.12.

 -- {MAINTAINER}  {{date}}
"""


def main(output: Path) -> None:
    moment = int(os.environ.get("SOURCE_DATE_EPOCH") or max(path.stat().st_mtime for path in sources()))
    date = format_datetime(datetime.fromtimestamp(moment, UTC))
    files = {Path("usr/src") / f"mlockwipe-{__version__}" / path.name: path.read_bytes() for path in sources()}
    documents = Path("usr/share/doc") / PACKAGE
    files[documents / "copyright"] = COPYRIGHT.encode()
    files[documents / "changelog.gz"] = gzip.compress(CHANGELOG.format(date=date).encode(), 9, mtime=moment)
    sums = "".join(f"{hashlib.md5(data).hexdigest()}  {path}\n" for path, data in sorted(files.items()))
    size = sum(-(-len(data) // 1024) for data in files.values())
    control = {"control": CONTROL.format(size=size), "md5sums": sums, "postinst": POSTINST, "prerm": PRERM}
    files |= {Path("DEBIAN") / name: text.encode() for name, text in control.items()}

    output.mkdir(parents=True, exist_ok=True)
    package = output / f"{PACKAGE}_{__version__}_all.deb"
    with tempfile.TemporaryDirectory() as name:
        for path, data in files.items():
            place = Path(name) / path
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_bytes(data)
            place.chmod(0o755 if path.name in ("postinst", "prerm") else 0o644)
        for directory in (Path(name), *(path for path in Path(name).rglob("*") if path.is_dir())):
            directory.chmod(0o755)
        subprocess.run(
            ["dpkg-deb", "--root-owner-group", "--build", "-Zxz", name, str(package)],
            check=True,
            env={**os.environ, "SOURCE_DATE_EPOCH": str(moment)},
            stdout=subprocess.DEVNULL,
        )
    print(package)


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    main(Path(sys.argv[1]))
