# SPDX-License-Identifier: MIT
"""Run the contract's cases under carriers."""

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import repeat

from mlockwipe.contract.candidate import Candidate
from mlockwipe.contract.case import Case
from mlockwipe.contract.cases import all_cases
from mlockwipe.contract.judge import judge
from mlockwipe.contract.result import Result


def verify(
    carriers: Sequence[Candidate],
    *,
    cases: Sequence[Case] | None = None,
    jobs: int | None = None,
    on_result: Callable[[str, Result], None] | None = None,
) -> dict[str, list[Result]]:
    """The results of every case under every carrier, by the carrier's name and in the order of the cases.

    `cases`: all, when None. `jobs`: how many run at a time; one more than there are processors, when None,
    for a case sleeps and waits a good part of its time. `on_result` is called from this thread, in the same
    order.
    """
    chosen = all_cases() if cases is None else list(cases)
    results: dict[str, list[Result]] = {}
    with ThreadPoolExecutor(jobs or (os.cpu_count() or 1) + 1) as pool:
        for carrier in carriers:
            run = results[carrier.name] = []
            for result in pool.map(judge, chosen, repeat(carrier)):
                run.append(result)
                if on_result is not None:
                    on_result(carrier.name, result)
    return results
