"""What `labctl apply` does for instances that exist: try again what failed, run again by tag."""

from sqlalchemy import Connection

from labctl.model.instance import Instance
from labctl.model.plan import HostCapacity, ScaleSet
from labctl.model.setup import Extension
from labctl.model.spec import ScaleSetSpec
from labctl.planner.impact import LIVE_FIELDS
from labctl.store.instances import (
    change_generation,
    remove_extension_runs,
    save_failure,
)
from labctl.store.scale_sets import load_view

_NO_CAPACITY = HostCapacity(boots_at_once=0, free_memory=0, overhead_per_instance=0)
# Differences that concern no instance, or no OS disk that exists already.
_ELSEWHERE = LIVE_FIELDS | {"image"}
_EXTENSIONS = {"extensions", "extensions_time_budget"}


def retry_and_rerun(
    connection: Connection, name: str, *, without: frozenset[str] = frozenset()
) -> tuple[str, ...]:
    """Record it for every instance but `without`; returns what was done, for people.

    An instance whose model differs from the newest only in its extensions takes the newest one,
    without a new OS disk, when it has failed (a script was corrected, a credential renewed) or
    when nothing but a forceUpdateTag differs. One that is protected from scale set actions keeps
    its own.
    """
    view = load_view(connection, name, capacity=_NO_CAPACITY)
    texts: list[str] = []
    for instance in view.instances:
        if instance.name in without:
            continue
        has_failed = _has_failed(view, instance)
        takes = not instance.protect_from_scale_set_actions and _takes_newest_model(
            view, instance, has_failed=has_failed
        )
        if takes:
            texts += _take_newest_model(connection, view, instance)
        if has_failed:
            save_failure(connection, instance.name, instance.generation, None)
            names = _failed_runs(view, instance)
            remove_extension_runs(
                connection, instance.name, instance.generation, extensions=sorted(names)
            )
            with_model = ", with the model as it is now" if takes else ""
            texts.append(f"{instance.name}: trying again what failed{with_model}")
    return tuple(texts)


def _has_failed(view: ScaleSet, instance: Instance) -> bool:
    return instance.current.failure is not None or bool(_failed_runs(view, instance))


def _failed_runs(view: ScaleSet, instance: Instance) -> set[str]:
    model = view.models[instance.current.model_revision]
    tolerated = {each.name for each in model.extensions if each.suppress_failures}
    return {
        run.name
        for run in instance.current.extensions
        if run.finished_at is not None and not run.has_succeeded and run.name not in tolerated
    }


def _takes_newest_model(view: ScaleSet, instance: Instance, *, has_failed: bool) -> bool:
    old = view.models[instance.current.model_revision]
    differing = {
        name
        for name in ScaleSetSpec.model_fields
        if name not in _ELSEWHERE and getattr(old, name) != getattr(view.spec, name)
    }
    if not differing or not differing <= _EXTENSIONS:
        return False
    return has_failed or (
        differing == {"extensions"}
        and list(map(_without_tag, old.extensions)) == list(map(_without_tag, view.spec.extensions))
    )


def _take_newest_model(
    connection: Connection, view: ScaleSet, instance: Instance
) -> tuple[str, ...]:
    old = {e.name: e for e in view.models[instance.current.model_revision].extensions}
    new = {e.name: e for e in view.spec.extensions}
    change_generation(
        connection, instance.name, instance.generation, model_revision=view.model_revision
    )
    changed = [
        name for name, each in old.items() if name not in new or _work(each) != _work(new[name])
    ]
    # What has changed has not run yet, whatever the earlier one did.
    remove_extension_runs(connection, instance.name, instance.generation, extensions=changed)
    return tuple(
        f"{instance.name}: running extension {name!r} again, forceUpdateTag {each.force_update_tag}"
        for name, each in new.items()
        if name in old
        and name not in changed
        and each.force_update_tag not in {None, old[name].force_update_tag}
    )


def _without_tag(extension: Extension) -> Extension:
    return extension.model_copy(update={"force_update_tag": None})


def _work(extension: Extension) -> tuple[object, ...]:
    """What a run depends on; not when it runs, how long it may take, or whether it may fail."""
    return (
        extension.script,
        extension.sha256,
        extension.playbook,
        extension.settings,
        extension.protected_settings,
    )
