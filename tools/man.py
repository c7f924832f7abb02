# SPDX-License-Identifier: MIT
"""Write the manual pages of all verbs, from what `--help` says: `.venv/bin/python tools/man.py DIR`."""

import re
import sys
from pathlib import Path

from argparse_manpage.manpage import Manpage

from mlockwipe import __version__, verbs


def page(name: str, summary: str, parser: object, others: list[str]) -> str:
    """A page in the order of man-pages(7), with a line of what it is about for whatis(1)."""
    text = str(Manpage(parser))
    body = re.sub(r"\.SH\n([A-Z ]+)", r".SH \1", text[text.index(".SH SYNOPSIS") :])
    body = body.replace(".SH COMMENTS\nverbs:\n", ".SH VERBS\n.nf\n").replace(".SH COMMENTS\n", "")
    body = body.replace("\nexample:\n", "\n.fi\n.SH EXAMPLES\n.nf\n")
    see = ",\n".join(f".BR {other} (1)" for other in others if other != name)
    return (
        f'.TH {name.upper()} 1 "" "mlockwipe {__version__}" "User Commands"\n'
        f".SH NAME\n{name} \\- {summary}\n{body}\n.fi\n.SH SEE ALSO\n{see}\n"
    )


def main(directory: Path) -> None:
    directory.mkdir(parents=True, exist_ok=True)
    pages = {"mlockwipe": ("zero locked memory when it is released", verbs.top_parser())}
    for verb in map(verbs.load, verbs.VERBS):
        pages[f"mlockwipe-{verb.name}"] = verb.summary, verb.parser()
    for name, (summary, parser) in pages.items():
        (directory / f"{name}.1").write_text(page(name, summary, parser, list(pages)), encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
