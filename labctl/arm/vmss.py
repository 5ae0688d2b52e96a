"""Scale sets as Azure's clients see them, and as the spec has them: two faces of one model."""

from labctl.arm.extensions import Secrets
from labctl.arm.merge import merge_document
from labctl.arm.reader import References
from labctl.arm.vmss_read import Reading, read_scale_set
from labctl.arm.vmss_render import TYPE, Shown, find_kept, render_scale_set

__all__ = [
    "TYPE",
    "Reading",
    "References",
    "Secrets",
    "Shown",
    "find_kept",
    "merge_document",
    "read_scale_set",
    "render_scale_set",
]
