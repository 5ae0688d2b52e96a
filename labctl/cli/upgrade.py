"""The commands for rolling OS image upgrades."""

from datetime import timedelta
from typing import TYPE_CHECKING, Annotated

import typer

from labctl.cli.context import Context, current_context
from labctl.cli.output import Column, Output, format_span, print_document, print_rows
from labctl.cli.upgrade_document import as_document, as_history, print_upgrade
from labctl.cli.wishes import Deadline, Name, NoWait, parse_deadline
from labctl.errors import NotFoundError

if TYPE_CHECKING:
    from labctl.controller.lab import Lab

HISTORY_KEPT = timedelta(days=61)  # the page shows the attempts of two months
HISTORY_SHOWN = 5
Version = Annotated[
    str | None,
    typer.Option("--version", metavar="VERSION", help="Default: what the spec's image names."),
]
IgnoreWindow = Annotated[
    bool,
    typer.Option("--ignore-window", help="Do not wait for the spec's maintenance windows."),
]


def plan(name: Name, version: Version = None, ignore_window: IgnoreWindow = False) -> None:
    """Tell what `upgrade start` would do, batch by batch, and why. Changes nothing."""
    from labctl.cli.evidence import describe_hooks
    from labctl.cli.follow import opened_lab
    from labctl.cli.model import describe_needs, print_needs
    from labctl.controller.clock import now
    from labctl.controller.resources import find_unreachable
    from labctl.controller.upgrades import find_changes, find_target
    from labctl.controller.work import look_once
    from labctl.model.upgrade import UpgradePurpose
    from labctl.planner import find_purpose, preview

    context = current_context()
    with opened_lab(context) as lab:
        view, _ = look_once(lab, name)
        with lab.database.read() as connection:
            target = find_target(connection, view, version, now=now())
        purpose = find_purpose(view, target.image.digest)
        needs = find_changes(view, target.image.digest, target.model_revision)
        found = preview(
            view,
            target_version=str(target.image.version),
            target_digest=target.image.digest,
            now=now(),
            ignores_windows=ignore_window,
        )
    absent = find_unreachable(view.spec, now=now(), settings=context.settings)
    document = {
        "scaleSet": name,
        "target": target.image.name,
        "purpose": purpose.value,
        "modelRevision": target.model_revision,
        **describe_needs(*needs),
        "refusal": found.refusal,
        "unreachable": [{"extension": who, "fault": fault} for who, fault in absent],
        "batches": [
            {
                "number": batch.number,
                "phase": batch.phase,
                "zone": batch.zone,
                "updateDomain": batch.update_domain,
                "instances": batch.instances,
                "replacements": [
                    {"instance": old, "replacedBy": new} for new, old in batch.replacements
                ],
                "reason": batch.reason,
                "afterPause": batch.after_pause,
                "needsApproval": batch.needs_approval,
                "approvedBy": batch.approved_by or None,
                "drains": batch.drains,
                "undrains": batch.undrains,
            }
            for batch in found.batches
        ],
        "skipped": [{"instance": who, "reason": reason} for who, reason in found.skipped],
        "ending": found.ending,
        "stuck": [hold.reason for hold in found.stuck],
    }
    if context.output is not Output.TABLE:
        print_document(document, context.output)
        return
    if found.refusal is not None:
        print(f"{name}: upgrade to {target.image.name} would be refused: {found.refusal.message}")
        print(f"next: {found.refusal.hint}")
        return
    model = f" with model {target.model_revision}" if purpose is UpgradePurpose.MODEL else ""
    for who, fault in absent:
        print(f"{name}: upgrade would be refused: {who}: {fault}")
    print(f"{name}: upgrade to {target.image.name}{model}")
    if purpose is UpgradePurpose.MODEL:
        print_needs(*needs)
    if view.spec.upgrade_policy.rolling_upgrade_policy.max_surge:
        print("  by new instances, which come for those that are there (maxSurge)")
    for batch in found.batches:
        pause = f", {format_span(batch.after_pause)} later" if batch.after_pause else ""
        pause += f", once {batch.approved_by} has approved it" if batch.needs_approval else ""
        print(f"  batch {batch.number}: {', '.join(batch.instances)}{pause}  ({batch.reason})")
        for line in describe_hooks(view.spec.upgrade_policy.hooks, batch):
            print(f"    {line}")
    for who, reason in found.skipped:
        print(f"  not touched: {who}  ({reason})")
    for hold in found.stuck:
        print(f"  would wait: {hold.reason}")
    policy = view.spec.upgrade_policy
    rolling = policy.rolling_upgrade_policy
    print(
        f"  stops when more than {rolling.max_unhealthy_instance_percent} % of all, or "
        f"{rolling.max_unhealthy_upgraded_instance_percent} % of the upgraded, are unhealthy; "
        f"each has {format_span(policy.health_timeout)} to become healthy"
    )


def start(
    name: Name,
    version: Version = None,
    rollback: Annotated[
        bool,
        typer.Option(
            "--rollback", help="Put the previous OS disk back where an instance does not recover."
        ),
    ] = False,
    ignore_window: IgnoreWindow = False,
    timeout: Deadline = None,
    no_wait: NoWait = False,
) -> None:
    """Upgrade the OS disks in batches, gated by health; data disks are kept.

    Run again after an interruption, it goes on with the upgrade that it began.
    """
    from labctl.cli.follow import last_event, opened_lab
    from labctl.controller.clock import now
    from labctl.controller.resources import require_for_upgrade
    from labctl.controller.upgrade_control import ignore_windows
    from labctl.controller.upgrades import (
        NothingToUpgradeError,
        find_same_upgrade,
        find_target,
        start_upgrade,
    )
    from labctl.controller.work import look_once
    from labctl.model.upgrade import StartedBy

    context = current_context()
    deadline = parse_deadline(timeout)
    with opened_lab(context) as lab:
        lab.check()
        since = last_event(lab.database)
        view, _ = look_once(lab, name)
        require_for_upgrade(lab, view, version, restores=rollback)
        try:
            with lab.database.write() as connection:
                target = find_target(connection, view, version, now=now())
                upgrade_id = find_same_upgrade(
                    connection, name, target, restores=rollback
                ) or start_upgrade(
                    connection,
                    view,
                    target,
                    restores=rollback,
                    started_by=StartedBy.USER,
                    now=now(),
                    ignores_windows=ignore_window,
                )
                if ignore_window:
                    ignore_windows(connection, name, now=now())
        except NothingToUpgradeError as error:
            _say(context, None, error.brief)
            return
        if not no_wait:
            _follow_to_end(context, lab, name, upgrade_id, deadline=deadline, since=since)
            return
    _say(context, upgrade_id, f"recorded; run: labctl upgrade watch {name}")


def status(name: Name) -> None:
    """Show the latest upgrade, what it waits for, its counters and every instance in it."""
    from labctl.cli.follow import opened_store
    from labctl.controller.clock import now
    from labctl.controller.waits import find_waits
    from labctl.store.scale_sets import get_scale_set
    from labctl.store.upgrades import load_upgrades

    context = current_context()
    with opened_store(context) as database, database.read() as connection:
        get_scale_set(connection, name)
        found = load_upgrades(connection, name, limit=1)
        waits = find_waits(connection, context.settings, name, now())
    if not found:
        raise NotFoundError(
            f"scale set {name!r} was never upgraded", hint=f"run: labctl upgrade plan {name}"
        )
    print_upgrade(context, found[0], waits)


def watch(name: Name, timeout: Deadline = None) -> None:
    """Follow the running upgrade to its end; goes on with it where its controller died."""
    from labctl.cli.follow import opened_lab
    from labctl.store.scale_sets import get_scale_set
    from labctl.store.upgrades import find_running_upgrade

    context = current_context()
    deadline = parse_deadline(timeout)
    with opened_lab(context) as lab:
        lab.check()
        with lab.database.read() as connection:
            get_scale_set(connection, name)
            running = find_running_upgrade(connection, name)
        if running is None:
            raise NotFoundError(
                f"no upgrade of {name!r} is running",
                hint=f"run: labctl upgrade history {name}",
            )
        _follow_to_end(context, lab, name, running.id, deadline=deadline, since=None)


def cancel(name: Name, timeout: Deadline = None, no_wait: NoWait = False) -> None:
    """Stop the running upgrade at the end of its batch."""
    from labctl.cli.follow import last_event, opened_lab
    from labctl.controller.clock import now
    from labctl.controller.upgrades import cancel_upgrade
    from labctl.store.scale_sets import get_scale_set

    context = current_context()
    deadline = parse_deadline(timeout)
    with opened_lab(context) as lab:
        since = last_event(lab.database)
        with lab.database.write() as connection:
            get_scale_set(connection, name)
            upgrade_id = cancel_upgrade(connection, name, now=now())
        if not no_wait:
            _follow_to_end(
                context, lab, name, upgrade_id, deadline=deadline, since=since, cancels=True
            )
            return
    _say(context, upgrade_id, "will stop at the end of its batch")


def history(
    name: Name,
    all_: Annotated[
        bool, typer.Option("--all", help="Every attempt, not the last five of two months.")
    ] = False,
) -> None:
    """List past upgrades, newest first."""
    from labctl.cli.follow import opened_store
    from labctl.controller.clock import now
    from labctl.store.upgrades import load_upgrades

    context = current_context()
    with opened_store(context) as database, database.read() as connection:
        found = load_upgrades(
            connection,
            name,
            since=None if all_ else now() - HISTORY_KEPT,
            limit=None if all_ else HISTORY_SHOWN,
        )
    rows = [as_history(upgrade) for upgrade in found]
    if context.output is not Output.TABLE:
        print_document(rows, context.output)
        return
    flat = [
        {
            "id": upgrade.id,
            "code": upgrade.code.value,
            "target": upgrade.target,
            "startedBy": upgrade.started_by.value,
            "startedAt": upgrade.started_at,
            "endedAt": upgrade.ended_at,
            **{key.removesuffix("InstanceCount"): count for key, count in upgrade.counts.items()},
            "error": upgrade.error.code.value if upgrade.error else None,
        }
        for upgrade in found
    ]
    columns: list[Column | str] = [
        Column(key="id", right=True),
        "code",
        "target",
        "startedBy",
        "startedAt",
        "endedAt",
        Column(key="successful", right=True),
        Column(key="failed", right=True),
        Column(key="pending", right=True),
        "error",
    ]
    print_rows(flat, columns, context.output, empty=f"no upgrades of {name}")


def show(
    upgrade_id: Annotated[
        int, typer.Argument(metavar="ID", min=1, max=2**31, help="From `upgrade history`.")
    ],
) -> None:
    """Show one upgrade, with the evidence of every instance that failed."""
    from labctl.cli.evidence import describe_run, print_evidence, print_hook_runs
    from labctl.cli.follow import opened_lab
    from labctl.controller.evidence import load_all_evidence
    from labctl.store.hooks import load_hook_runs
    from labctl.store.upgrades import load_upgrade

    context = current_context()
    with opened_lab(context) as lab:
        with lab.database.read() as connection:
            upgrade = load_upgrade(connection, upgrade_id)
            runs = load_hook_runs(connection, upgrade=upgrade_id)
        evidence = load_all_evidence(lab, upgrade_id)
        folder = context.settings.state_dir / "upgrades" / str(upgrade_id)
    if context.output is not Output.TABLE:
        hooks = [describe_run(run) for run in runs]
        document = {**as_document(upgrade), "hooks": hooks, "evidence": evidence}
        print_document(document, context.output)
        return
    print_upgrade(context, upgrade)
    print_hook_runs(runs)
    for instance, found in evidence.items():
        print_evidence(instance, found)
    if evidence:
        print(f"\nall of it: {folder}")


def _follow_to_end(
    context: Context,
    lab: "Lab",
    name: str,
    upgrade_id: int,
    *,
    deadline: timedelta | None,
    since: int | None,
    cancels: bool = False,
) -> None:
    from labctl.cli.follow import UnsuccessfulError, follow
    from labctl.controller.goal import upgrade_ended
    from labctl.model.upgrade import Upgrade, UpgradeCode
    from labctl.store.upgrades import load_upgrade

    def load(wanted: int) -> Upgrade:
        with lab.database.read() as connection:
            return load_upgrade(connection, wanted)

    goal = upgrade_ended(upgrade_id, load)
    outcome = follow(context, lab, name, goal, deadline=deadline, since=since)
    ended = load(upgrade_id)
    if ended.code is UpgradeCode.CANCELLED and not cancels:
        raise UnsuccessfulError(
            f"{name}: {outcome.message}", hint=f"run: labctl upgrade start {name}, to go on"
        )
    if context.output is Output.TABLE:
        print(f"{name}: {outcome.message}")
    else:
        print_document(as_document(ended), context.output)


def _say(context: Context, upgrade_id: int | None, message: str) -> None:
    if context.output is Output.TABLE:
        print(message if upgrade_id is None else f"upgrade {upgrade_id}: {message}")
    else:
        print_document({"upgrade": upgrade_id, "message": message}, context.output)
