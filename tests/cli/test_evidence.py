"""What is printed about hooks."""

from datetime import UTC, datetime, timedelta

from labctl.cli.evidence import describe_hooks, print_evidence, print_hook_runs
from labctl.model.hook import Hook, HookKind, Hooks
from labctl.planner import PreviewBatch
from labctl.store.hooks import HookRun

NOW = datetime(2026, 11, 23, tzinfo=UTC)


def test_a_dry_run_tells_which_hooks_run_for_whom():
    hooks = Hooks(drain=Hook(command=("lb", "remove")), undrain=Hook(script="true"))
    names = ("web_0", "web_1")
    batch = PreviewBatch(
        number=1,
        instances=names,
        reason="batch 1",
        after_pause=timedelta(0),
        drains=names,
        undrains=("web_0",),
    )
    assert list(describe_hooks(hooks, batch)) == [
        "before its stop, drain web_0, web_1 by lb remove, on failure Stop",
        "once healthy, undrain web_0 by a script in the guest, on failure Stop",
    ]
    assert list(describe_hooks(Hooks(), batch)) == []


LINES = "\n".join(f"line {n}" for n in range(9))


def run(message, finished_at, output=LINES):
    return HookRun(
        id=1,
        instance="web_0",
        upgrade=1,
        kind=HookKind.DRAIN,
        reason="batch 1",
        started_at=NOW,
        finished_at=finished_at,
        exit_code=0,
        has_failed=bool(message),
        message=message,
        output=output,
    )


def test_what_hooks_said_is_printed_with_its_last_lines(capsys):
    print_hook_runs([run("", NOW), run("exit code 3: no", NOW), run("", None)])
    told = capsys.readouterr().out
    for line in ("drain: succeeded", "drain: exit code 3: no", "drain: has not ended"):
        assert f"web_0 {line}" in told
    assert "    line 3\n" in told
    assert "line 2" not in told


STEERING = "\x1b]0;title\x07 \x1b[2J\x1b]52;c;cm0=\x07 \x9b2J\rtold"


def test_what_a_guest_says_cannot_steer_the_terminal(capsys):
    print_hook_runs([run(f"exit code 1: {STEERING}", NOW, f"a\n{STEERING}\n")])
    print_evidence(
        "web_0",
        {
            "rung": "Extensions",
            "reason": STEERING,
            "imageVersion": "1.0.0",
            "generation": 2,
            "power": "Running",
            "serialTail": ["one", STEERING],
            "customData": STEERING,
            "extensions": [{"name": "app", "exitCode": 3, "output": STEERING}],
            "healthSamples": [{"at": "now", "state": "Unhealthy", "detail": STEERING}],
        },
    )
    told = capsys.readouterr().out
    assert told.count("told") == 7
    assert not set(told) & set("\x1b\x07\x9b\r")
    assert "\n    one\n" in told
