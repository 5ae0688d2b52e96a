"""`labctl image watch`: which scale sets would take which image, when, and why not."""

from typing import TYPE_CHECKING, Annotated, Any

import typer

from labctl.cli.context import current_context
from labctl.cli.output import Output, format_moment, print_rows

if TYPE_CHECKING:
    from labctl.controller.platform import Forecast


def watch(
    scale_sets: Annotated[
        list[str] | None, typer.Argument(metavar="SCALE_SET", help="Default: all.")
    ] = None,
) -> None:
    """Tell for each scale set which image version it would take by itself, when, and why not."""
    from labctl.cli.follow import opened_lab
    from labctl.controller.clock import now
    from labctl.controller.platform import foresee, load_timing
    from labctl.controller.work import look_once
    from labctl.store.scale_sets import get_scale_set, load_scale_sets

    context = current_context()
    with opened_lab(context) as lab:
        with lab.database.read() as connection:
            for name in scale_sets or ():
                get_scale_set(connection, name)
            names = scale_sets or [row.name for row in load_scale_sets(connection)]
            timing = load_timing(connection)
        rows = []
        for name in names:
            view, _ = look_once(lab, name)
            with lab.database.read() as connection:
                forecast = foresee(connection, view, timing=timing, now=now())
            counted = sorted({i.current.image_version for i in view.instances})
            rows.append(_describe(forecast, ", ".join(counted)))
    columns = ["scaleSet", "region", "runs", "latest", "takes", "when", "why"]
    if context.output is Output.TABLE:
        for row in rows:
            passed = [f"{each['version']}: {each['reason']}" for each in row["passedOver"]]
            row["why"] = "; ".join([row["why"], *passed])
            row["when"] = row["when"] or ""
    print_rows(rows, columns, context.output, empty="no scale sets; run: labctl apply SPEC.yaml")


def _describe(forecast: "Forecast", runs: str) -> dict[str, Any]:
    from labctl.planner import Rollout

    decision, offer = forecast.decision, forecast.offer
    latest = "" if offer is None else f"{offer.image.definition}/{offer.image.version}"
    is_waiting = not isinstance(decision, Rollout) and decision.until is not None
    takes = latest if isinstance(decision, Rollout) or is_waiting else None
    when = None
    if isinstance(decision, Rollout):
        when = "as soon as labctl serve runs"
    elif decision.until is not None:
        when = format_moment(decision.until)
    return {
        "scaleSet": forecast.scale_set,
        "region": forecast.region,
        "runs": runs or None,
        "latest": latest or None,
        "takes": takes,
        "when": when,
        "why": decision.reason,
        "passedOver": [
            {"version": each.version, "reason": each.reason} for each in forecast.passed
        ],
    }
