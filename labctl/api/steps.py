"""How each kind of long-running operation is taken further."""

from collections.abc import Mapping
from dataclasses import dataclass

from labctl.api.deploy import make_step
from labctl.api.deployments import DEPLOYMENT
from labctl.api.desk import Desk
from labctl.api.group_delete import make_group_step
from labctl.api.groups import GROUP_DELETE
from labctl.api.route import Routes
from labctl.api.scale_set_steps import make_scale_set_steps
from labctl.controller.image_import import IMAGE_IMPORT, ImageImport, ensure_import_dir
from labctl.controller.lab import Lab
from labctl.controller.operations import Step


@dataclass(frozen=True, slots=True, kw_only=True)
class Steps:
    """Steps by kind of operation; the slow ones may take minutes."""

    quick: Mapping[str, Step]
    slow: Mapping[str, Step]


def make_steps(desk: Desk, lab: Lab, routes: Routes) -> Steps:
    """All of them; the modules in `api` and `controller` that begin operations bring theirs."""
    scale_sets = make_scale_set_steps(desk, lab)
    return Steps(
        quick={DEPLOYMENT: make_step(desk, routes), **scale_sets.quick},
        slow={
            GROUP_DELETE: make_group_step(desk),
            IMAGE_IMPORT: make_import_step(desk),
            **scale_sets.slow,
        },
    )


def make_import_step(desk: Desk) -> Step:
    """Where files to import are put is there from the first start on."""
    ensure_import_dir(desk.settings)
    return ImageImport(desk.settings, desk.database, desk.stop)
