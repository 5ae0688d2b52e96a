"""For mutants, hypothesis only asks whether a test fails."""

import os

from hypothesis import Phase, settings

if os.environ.get("LABCTL_MUTANT"):
    # No failure is made smaller or remembered.
    phases = (Phase.explicit, Phase.generate)
    settings.register_profile("mutant", settings(phases=phases, database=None))
    settings.load_profile("mutant")
