"""`labctl example`: commented specs to start from."""

from importlib import resources
from typing import Annotated

import typer

from labctl.errors import InvalidError

_SUFFIX = ".yaml"


def example(
    name: Annotated[str, typer.Argument(help="tiny, debian or nat.")] = "tiny",
) -> None:
    """Print a commented spec to start from; keep it by: labctl example tiny > web.yaml.

    tiny: boots in seconds; a data disk, custom data, two extensions, application health.
    debian: Debian 12 with real cloud-init. nat: own network, probe from outside.
    """
    print(read_example(name), end="")


def list_examples() -> list[str]:
    """The names that `read_example` knows."""
    files = resources.files("labctl").joinpath("examples").iterdir()
    return sorted(file.name.removesuffix(_SUFFIX) for file in files if file.name.endswith(_SUFFIX))


def read_example(name: str) -> str:
    """Raises InvalidError with the known names for any other."""
    known = list_examples()
    if name not in known:
        raise InvalidError(
            f"there is no example {name!r}",
            detail=f"there are: {', '.join(known)}",
            hint="run: labctl example",
        )
    return resources.files("labctl").joinpath("examples", f"{name}{_SUFFIX}").read_text("utf-8")
