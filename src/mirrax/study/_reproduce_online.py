r"""S002's Fig. 2 re-made: online optimisers on ill-conditioned quadratics."""

from collections.abc import Mapping
from typing import Any

from .. import report
from ._config import at_budget, override
from ._online import OnlineStudy, compare_online
from ._reproduction import Reproduction, Request

_SMOKE = {"problems": 2, "steps": 20, "rates": 1}


def _figure2(request: Request) -> dict[str, Any]:
    """Both minimisers, all methods; the paper's own size is the default."""
    config = at_budget(OnlineStudy(), request.budget, smoke=_SMOKE, paper={})
    config = override(config, request.fields)

    def compare() -> dict[str, Any]:
        return compare_online(config, request.seed, request.progress)

    summary = request.once(config, "s002-fig2", lambda: compare)
    report.write_figures(report.Run.read(request.path))
    return summary


def _figure2_tables(result: Mapping[str, Any]) -> list[report.Table]:
    return [report.online_table(result)]


ONLINE_REPRODUCTIONS: dict[str, Reproduction] = {
    "s002-fig2": Reproduction(
        "rates learned online against momentum and AdaGrad on quadratics",
        _figure2,
        _figure2_tables,
    ),
}
