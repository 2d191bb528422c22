r"""S002's Fig. 2 re-made: online optimisers on ill-conditioned quadratics."""

from collections.abc import Mapping
from typing import Any

from .. import report
from ._online import OnlineStudy, compare_online
from ._reproduction import Reproduction, Request, budgets

_SMOKE = {"problems": 2, "steps": 20, "rates": 1}


def _figure2(request: Request, config: OnlineStudy) -> dict[str, Any]:
    """Both minimisers, all methods."""

    def compare() -> dict[str, Any]:
        return compare_online(config, request.seed, request.progress)

    return request.once(config, "s002-fig2", lambda: compare)


def _figure2_tables(result: Mapping[str, Any]) -> list[report.Table]:
    return [report.online_table(result)]


ONLINE_REPRODUCTIONS: dict[str, Reproduction] = {
    "s002-fig2": Reproduction(
        "rates learned online against momentum and AdaGrad on quadratics",
        budgets(OnlineStudy(), _SMOKE),
        _figure2,
        _figure2_tables,
    ),
}
