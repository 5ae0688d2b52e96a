"""Hooks that run on this host, recorded in a real store."""

import os
import sys
import time
from types import SimpleNamespace

import pytest

from labctl.controller.desired import apply_spec, reimage, restart, scale
from labctl.controller.hooks import run_hook
from labctl.controller.signals import Signal
from labctl.drivers.program import KEPT
from labctl.drivers.program_lock import held, write_run
from labctl.errors import LabError
from labctl.model.hook import HookKind
from labctl.model.instance import HookFailure
from labctl.model.notification import Topic
from labctl.model.plan import BeginBatch, MoveMember, RunHook
from labctl.model.upgrade import MemberState
from labctl.store.events import load_events
from labctl.store.hooks import drop_hook_runs, load_hook_runs
from labctl.store.instances import change_generation, save_hook_failure
from tests.controller.test_record import NOW, decide, spec, start_upgrade, view
from tests.controller.test_record import database as database  # noqa: PLC0414 - a fixture
from tests.controller.test_record import web as web  # noqa: PLC0414 - a fixture


@pytest.fixture
def lab(web, tmp_path):
    settings = SimpleNamespace(locks_dir=tmp_path / "locks", controller_key=tmp_path / "key")
    return SimpleNamespace(database=web, settings=settings)


def give(web, **hooks):
    with web.write() as connection:
        apply_spec(connection, spec(upgradePolicy={"hooks": hooks}), now=NOW)


def run(lab, kind, *, is_binding=True, signal=None):
    facts = view(lab.database)
    hooks = facts.spec.upgrade_policy.hooks
    action = RunHook(
        instance="web_0",
        kind=kind,
        is_binding=is_binding,
        awaits_undrain=kind is HookKind.DRAIN and hooks.undrain is not None,
        reason="batch 1",
    )
    no_guest = pytest.fail
    run_hook(lab, facts, facts.instances[0], action, no_guest, signal or Signal())
    return view(lab.database).instances[0]


def runs(lab, **which):
    with lab.database.read() as connection:
        return load_hook_runs(connection, **which)


def last_event(lab):
    with lab.database.read() as connection:
        return load_events(connection)[-1]


def test_a_drain_takes_an_instance_out_of_service_and_an_undrain_puts_it_back(lab, web):
    tell = "echo $LABCTL_HOOK $LABCTL_SCALE_SET $LABCTL_INSTANCE $LABCTL_ORDINAL $LABCTL_REASON;"
    tell += 'echo $LABCTL_IMAGE_VERSION $LABCTL_ADDRESS $LABCTL_SSH_PORT "[$LABCTL_UPGRADE]"'
    give(web, drain={"command": ["sh", "-c", tell]}, undrain={"command": ["true"]})
    drained = run(lab, HookKind.DRAIN)
    assert drained.drained_at is not None
    assert drained.out_of_service_since == drained.drained_at
    (only,) = runs(lab, instance="web_0")
    port = 1000
    assert only.output == f"drain web web_0 0 batch 1\n1.0.0 127.0.0.1 {port} []\n"
    assert (only.exit_code, only.has_failed, only.upgrade) == (0, False, None)
    assert last_event(lab).topic == Topic.HOOK_SUCCEEDED
    back = run(lab, HookKind.UNDRAIN)
    assert (back.drained_at, back.out_of_service_since) == (None, None)


def test_a_failure_is_kept_and_counted_and_its_output_is_evidence(lab, web):
    upgrade = start_upgrade(web)
    decide(web, BeginBatch(upgrade=upgrade, batch=1, instances=("web_0",), reason="batch 1"))
    give(web, drain={"command": ["sh", "-c", "echo five sessions; exit 3"]})
    failure = run(lab, HookKind.DRAIN).hook_failure
    assert (failure.kind, failure.message) == (HookKind.DRAIN, "exit code 3: five sessions")
    assert run(lab, HookKind.DRAIN).hook_failure.tries == 2
    assert [r.output for r in runs(lab, upgrade=upgrade)] == ["five sessions\n"] * 2
    assert last_event(lab).topic == Topic.HOOK_FAILED
    assert "exit code 3: five sessions" in last_event(lab).message


def test_no_secret_of_any_model_is_in_what_is_kept_of_an_output(lab, web):
    def rotate(secret, *command):
        hooks = {"drain": {"command": list(command)}}
        settings = {"name": "app", "script": "x", "protectedSettings": {"password": secret}}
        with web.write() as connection:
            model = spec(upgradePolicy={"hooks": hooks}, extensions=[settings])
            apply_spec(connection, model, now=NOW)

    rotate("OLDSECRET", "true")
    with web.write() as connection:
        change_generation(connection, "web_0", 1, model_revision=view(web).model_revision)
    rotate("NEWSECRET", "sh", "-c", "echo OLDSECRET NEWSECRET; exit 3")
    assert view(web).model_revision > view(web).instances[0].current.model_revision
    masked = "[protected] [protected]"
    assert run(lab, HookKind.DRAIN).hook_failure.message == f"exit code 3: {masked}"
    assert (runs(lab)[0].output, last_event(lab).detail) == (f"{masked}\n", f"{masked}\n")
    # The beginning of a long output is cut off, here in the middle of a secret.
    long = f"print('OLDSECRET' + 'x' * {KEPT - 6}, end='')"
    rotate("NEWSECRET", sys.executable, "-c", long)
    run(lab, HookKind.DRAIN)
    kept = runs(lab)[-1].output
    assert "ECRET" not in kept
    assert len(kept) == KEPT


def test_an_earlier_run_that_goes_on_is_named_with_the_next_step(lab, web, tmp_path):
    give(web, drain={"command": ["true"], "timeout": "1s"})
    lock = lab.settings.locks_dir / "hook-web_0.lock"
    with held(lock, "true", end=0, check=lambda: None) as descriptor:
        write_run(descriptor, os.getpid(), time.monotonic() + 600)
        message = run(lab, HookKind.DRAIN).hook_failure.message
    assert f"(process {os.getpid()})" in message
    assert message.endswith(f"; to end it at once: kill -- -{os.getpid()}")


def test_a_failure_that_does_not_bind_is_a_warning_and_counts_as_done(lab, web):
    give(web, drain={"command": ["false"], "onFailure": "Continue"})
    assert run(lab, HookKind.DRAIN, is_binding=False).drained_at is not None
    assert last_event(lab).message.endswith("; labctl goes on")
    assert runs(lab)[0].has_failed


def test_a_program_that_is_gone_or_late_fails_the_hook_and_not_the_controller(lab, web):
    give(web, drain={"command": ["/nowhere/drain"]})
    assert "'/nowhere/drain' is not there" in run(lab, HookKind.DRAIN).hook_failure.message
    give(web, drain={"command": ["sleep", "60"], "timeout": "1s"})
    assert run(lab, HookKind.DRAIN).hook_failure.message.startswith("did not end within 1 s")


def test_a_hook_that_left_the_spec_does_nothing(lab, web):
    give(web)
    assert run(lab, HookKind.DRAIN).drained_at is None
    assert runs(lab) == []


def test_a_cancelled_run_is_taken_up_until_a_stop_ends_it(lab, web):
    give(web, drain={"command": ["sleep", "60"]})
    signal = Signal()
    signal.cancel()
    for _ in range(2):
        with pytest.raises(LabError):
            run(lab, HookKind.DRAIN, signal=signal)
    assert len(runs(lab)) == 1  # the same one, so that a script in the guest is found again
    with web.write() as connection:
        drop_hook_runs(connection, "web_0", now=NOW)
    assert runs(lab)[0].message == "cut off by a stop"
    with pytest.raises(LabError):
        run(lab, HookKind.DRAIN, signal=signal)
    assert len(runs(lab)) == 2


def test_a_member_whose_drain_failed_has_its_disk_back_in_the_store(lab, web):
    upgrade = start_upgrade(web)
    decide(web, BeginBatch(upgrade=upgrade, batch=1, instances=("web_0",), reason="batch 1"))
    move = MoveMember(
        upgrade=upgrade,
        instance="web_0",
        state=MemberState.FAILED,
        reason="drain: exit code 3",
        is_untouched=True,
    )
    decide(web, move)
    facts = view(web)
    assert facts.upgrade.members[0].from_model == 1
    first = facts.instances[0]
    assert (first.generation, first.generations[1].evidence_at) == (1, NOW)


@pytest.mark.parametrize(
    "wish",
    [
        lambda connection: restart(connection, ["web_0"], now=NOW),
        lambda connection: reimage(connection, ["web_0"], now=NOW),
        lambda connection: scale(connection, "web", 2, now=NOW),
        lambda connection: apply_spec(connection, spec(), now=NOW),
    ],
    ids=["restart", "reimage", "scale", "apply"],
)
def test_a_new_wish_forgets_the_failure(web, wish):
    failure = HookFailure(kind=HookKind.DRAIN, at=NOW, message="no", tries=3)
    with web.write() as connection:
        save_hook_failure(connection, "web_0", failure)
    assert view(web).instances[0].hook_failure == failure
    with web.write() as connection:
        wish(connection)
    assert view(web).instances[0].hook_failure is None
