"""Rules of hooks that hold in every turn; part of `rules.py`."""

from labctl.model.hook import HookKind
from labctl.model.instance import HealthState, Instance, Power, Wanted
from labctl.model.plan import RunHook, ScaleSet


def check_stop(scale_set: ScaleSet, instance: Instance) -> None:
    """Nobody who serves is stopped without having been taken out of service."""
    hooks = scale_set.spec.upgrade_policy.hooks
    is_asked = instance.wanted is Wanted.STOPPED or scale_set.is_deleting
    if hooks.drain is None or is_asked or not _is_ready(instance):
        return
    is_out = hooks.undrain is not None and instance.out_of_service_since is not None
    assert instance.drained_at is not None or is_out, "stopped without a drain"


def check_hook(scale_set: ScaleSet, instance: Instance, action: RunHook) -> None:
    hooks = scale_set.spec.upgrade_policy.hooks
    assert hooks.find(action.kind) is not None, "a hook that nobody asked for"
    assert not scale_set.is_deleting, "a hook while the whole set is deleted"
    assert instance.wanted is not Wanted.STOPPED
    assert _is_ready(instance), "a hook of one that is not up"
    if action.kind is HookKind.DRAIN:
        assert instance.drained_at is None, "drained twice for one stop"
        is_leaving = instance.wanted is Wanted.DELETED
        assert is_leaving or instance.current.prepared, "drained before its disk was ready"
        is_swapped = instance.domain.generation != instance.generation
        assert is_leaving or is_swapped or instance.restart_asked_at, "drained, and not stopped"
    else:
        assert instance.out_of_service_since is not None, "put into service twice"
        assert instance.domain.generation == instance.generation
        source = scale_set.models[instance.current.model_revision].health
        if source.application_health is not None:
            assert instance.health.state is HealthState.HEALTHY, "put into service while ill"


def _is_ready(instance: Instance) -> bool:
    booted = instance.find_generation(instance.domain.generation or 0)
    if booted is None or instance.domain.power is not Power.RUNNING:
        return False
    started, ready = booted.started_at, booted.ready_at
    return started is not None and ready is not None and ready >= started
