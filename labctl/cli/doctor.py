"""The command `doctor`: is this host ready, and if not, what mends it?"""

from typing import Annotated

import typer

from labctl.cli.context import current_context
from labctl.cli.output import Output, print_rows
from labctl.errors import ExitCode


def doctor(
    fix: Annotated[
        bool, typer.Option("--fix", help="Mend what is safe to mend, then check again.")
    ] = False,
) -> None:
    """Check everything that labctl needs of this host.

    Exit code 0: ready, perhaps with warnings; 6: a problem remains.
    """
    from labctl.drivers.doctor_checks import Status, mend, run_checks

    context = current_context()
    checks = run_checks(context.settings)
    mended: set[str] = set()
    while fix:
        # A daemon that answers again may bring the next problem to light.
        before = len(mended)
        for check, outcome in mend([check for check in checks if check.name not in mended]):
            print(f"{check.name}: {outcome}", file=context.story)
            mended.add(check.name)
        fix = len(mended) > before
        checks = run_checks(context.settings, fresh=not fix)
    rows = [
        {"check": check.name, "status": check.status, "found": check.found, "hint": check.hint}
        for check in checks
    ]
    print_rows(rows, ["check", "status", "found"], context.output)
    problems = [check for check in checks if check.status is Status.PROBLEM]
    if context.output is Output.TABLE:
        hints = [check for check in checks if check.status is not Status.OK]
        if hints:
            print()
        for check in hints:
            print(f"{check.name}: {check.hint}")
        if any(check.fix is not None and check.name not in mended for check in hints):
            print("labctl doctor --fix mends what is safe to mend")
    if problems:
        raise typer.Exit(ExitCode.HOST)
