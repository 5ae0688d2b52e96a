"""Hypothesis profiles: `dev` by default, `ci` by HYPOTHESIS_PROFILE=ci."""

import os

from hypothesis import Phase, settings

settings.register_profile("dev", max_examples=100, deadline=None)
settings.register_profile("ci", max_examples=500, derandomize=True, deadline=None, print_blob=True)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "dev"))
if os.environ.get("LABCTL_MUTANT"):
    # Of a mutant it is only asked whether it fails: no failure is made smaller or remembered.
    phases = (Phase.explicit, Phase.generate)
    settings.register_profile("mutant", settings(phases=phases, database=None))
    settings.load_profile("mutant")
