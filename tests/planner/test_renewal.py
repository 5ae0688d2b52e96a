"""How an instance gets another model."""

from dataclasses import replace
from datetime import timedelta

import pytest

from labctl.model.instance import ExtensionRun, Failure, Rung, Wanted
from labctl.model.machine import MachineSize
from labctl.model.setup import CustomData, Extension
from labctl.planner.impact import Need
from labctl.planner.renewal import Renewal, choose_renewal, renew_generation, renew_in_place
from tests.planner.world import NEW, OLD, T0, digest, make_generation, make_instance, make_spec

LARGER = make_spec(1, size=MachineSize(vcpus=2))
SCRIPTED = make_spec(1, extensions=(Extension(name="app", script="new"),))
CUSTOM = make_spec(1, custom_data=CustomData(inline="#!/bin/sh"))
BOTH = SCRIPTED.model_copy(update={"custom_data": CUSTOM.custom_data})
MODELS = {1: make_spec(1), 2: LARGER, 3: SCRIPTED, 4: CUSTOM, 5: make_spec(1), 6: BOTH}
LATER = T0 + timedelta(seconds=1)


def choose(revision, instance=None, **changes):
    values = {"image_digest": digest(OLD), "model_revision": revision, "keeps_way_back": False}
    return choose_renewal(instance or make_instance(0), MODELS, **(values | changes))


@pytest.mark.parametrize(
    ("revision", "renewal"),
    [
        (2, Renewal(need=Need.RESTART)),
        (3, Renewal(need=Need.RERUN_EXTENSIONS, reruns=("app",))),
        (4, Renewal(need=Need.OS_SWAP)),
        (5, Renewal(need=Need.NOTHING)),  # changed, and changed back
    ],
)
def test_an_instance_goes_through_no_more_than_the_change_needs(revision, renewal):
    assert choose(revision) == renewal
    assert renewal.keeps_disk == (revision != 4)


def test_another_image_or_a_way_back_needs_another_disk():
    swap = Renewal(need=Need.OS_SWAP)
    assert choose(2, image_digest=digest(NEW)) == swap
    assert choose(2, keeps_way_back=True) == swap


def test_a_new_os_disk_runs_every_extension_anyway():
    assert choose(6) == Renewal(need=Need.OS_SWAP)


def test_a_script_that_may_still_run_is_not_taken_for_the_new_one():
    run = ExtensionRun(name="app", started_at=T0, finished_at=None, exit_code=None)
    running = make_instance(0, generations=(make_generation(extensions=(run,)),))
    assert choose(3, running) == Renewal(need=Need.OS_SWAP)


def test_a_restart_makes_seed_and_data_disks_again_and_is_asked_for():
    renewed = renew_in_place(
        make_instance(0), Renewal(need=Need.RESTART), model_revision=2, now=LATER
    )
    assert renewed.current == replace(make_generation(), model_revision=2, prepared=False)
    assert renewed.restart_asked_at == LATER
    assert renewed.domain.is_stale


def test_a_stopped_instance_is_not_asked_to_restart():
    stopped = make_instance(0, wanted=Wanted.STOPPED)
    renewed = renew_in_place(stopped, Renewal(need=Need.RESTART), model_revision=2, now=LATER)
    assert renewed.restart_asked_at is None
    assert not renewed.current.prepared


def test_a_rerun_forgets_the_changed_extension_and_touches_nothing_else():
    renewal = Renewal(need=Need.RERUN_EXTENSIONS, reruns=("app",))
    renewed = renew_in_place(make_instance(0), renewal, model_revision=3, now=LATER)
    assert renewed == replace(
        make_instance(0), generations=(make_generation(model_revision=3, extensions=()),)
    )


def test_what_failed_under_the_old_model_may_be_tried_again():
    failed = ExtensionRun(name="other", started_at=T0, finished_at=T0, exit_code=3)
    done = make_generation().extensions
    generation = make_generation(
        failure=Failure(rung=Rung.EXTENSIONS, message="no", at=T0),
        evidence_at=T0,
        extensions=(*done, failed),
    )
    renewed = renew_generation(generation, Renewal(need=Need.NOTHING), model_revision=5)
    assert renewed == make_generation(model_revision=5, extensions=done)
