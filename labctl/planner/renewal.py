"""How an instance gets another model: on its present OS disk where that is enough."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime

from labctl.model.instance import Generation, Instance, Wanted
from labctl.model.spec import ScaleSetSpec
from labctl.planner.impact import Need, find_impacts, find_need


@dataclass(frozen=True, slots=True, kw_only=True)
class Renewal:
    """What one instance goes through; `need` is OS_SWAP or less."""

    need: Need
    reruns: tuple[str, ...] = ()  # extensions whose runs are forgotten

    @property
    def keeps_disk(self) -> bool:
        """Does the instance stay on its OS disk?"""
        return self.need is not Need.OS_SWAP


def choose_renewal(
    instance: Instance,
    models: Mapping[int, ScaleSetSpec],
    *,
    image_digest: str,
    model_revision: int,
    keeps_way_back: bool,
) -> Renewal:
    """The least that brings the instance to that image and model.

    `keeps_way_back`: the previous state must be restorable, and only an OS disk that nothing has
    written to since can be put back.
    """
    # Only `size` differs: restart. `size` and customData, or size and the image: a new OS disk.
    current = instance.current
    if keeps_way_back or current.image_digest != image_digest:
        return Renewal(need=Need.OS_SWAP)
    if any(run.finished_at is None for run in current.extensions):
        # A script of the old model may still be running, and would be taken for the new one.
        return Renewal(need=Need.OS_SWAP)
    impacts = find_impacts(models[current.model_revision], models[model_revision])
    need = find_need(impacts)
    if need.rank >= Need.OS_SWAP.rank:
        return Renewal(need=Need.OS_SWAP)
    return Renewal(need=need, reruns=tuple(name for each in impacts for name in each.reruns))


def renew_in_place(
    instance: Instance, renewal: Renewal, *, model_revision: int, now: datetime
) -> Instance:
    """The instance after the new model was recorded for its present OS disk."""
    restarts = renewal.need is Need.RESTART
    generations = tuple(
        renew_generation(generation, renewal, model_revision=model_revision)
        if generation.number == instance.generation
        else generation
        for generation in instance.generations
    )
    domain = replace(instance.domain, is_stale=True) if restarts else instance.domain
    asks = restarts and instance.wanted is Wanted.RUNNING
    return replace(
        instance,
        generations=generations,
        domain=domain,
        restart_asked_at=now if asks else instance.restart_asked_at,
    )


def renew_generation(
    generation: Generation, renewal: Renewal, *, model_revision: int
) -> Generation:
    """The OS disk under its new model; what failed under the old one may be tried again."""
    restarts = renewal.need is Need.RESTART
    return replace(
        generation,
        model_revision=model_revision,
        # Seed and data disks are made again, as the new model has them.
        prepared=generation.prepared and not restarts,
        extensions=tuple(
            run
            for run in generation.extensions
            if run.name not in renewal.reruns and run.has_succeeded
        ),
        failure=None,
        evidence_at=None,
    )
