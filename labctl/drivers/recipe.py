"""Image recipes: folders with a `recipe.yaml` and a program `build` that writes a qcow2."""

import contextlib
import fcntl
import hashlib
import json
import os
import secrets
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from pydantic.alias_generators import to_camel

from labctl.drivers.command import CommandError, run
from labctl.errors import HostError, InvalidError, LabError, NotFoundError
from labctl.model.image import VersionNumber
from labctl.model.machine import NAME_PATTERN
from labctl.model.yaml_text import parse_yaml
from labctl.settings import Settings, make_passable

_TIMEOUT = timedelta(minutes=60)
_TAIL = 1500  # characters of the log that an error shows
_MORE_PATH = "/usr/sbin:/sbin"  # where mke2fs and sfdisk are; not on the PATH of every user


class _Strict(BaseModel):
    model_config = ConfigDict(
        extra="forbid", frozen=True, alias_generator=to_camel, populate_by_name=True
    )


class Parameter(_Strict):
    """Something that a build can be told with `--set NAME=VALUE`."""

    default: str
    values: tuple[str, ...] = Field(default=(), description="Allowed values; empty: any")
    description: str = ""


class Recipe(_Strict):
    """What `recipe.yaml` says."""

    name: str = Field(pattern=NAME_PATTERN)
    os_type: str = Field(pattern=r"^linux$")
    description: str = ""
    parameters: dict[str, Parameter] = {}
    tools: dict[str, str] = Field(default={}, description="Program: Debian package with it")
    files: dict[str, str] = Field(default={}, description="File of the host: Debian package")
    include: tuple[str, ...] = Field(
        default=(), description="Further paths, relative to the recipe, that the build reads"
    )
    needs_root: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class BuiltImage:
    """A bootable qcow2 file in the build cache."""

    build_id: str  # the guest knows it too
    path: Path  # read-only
    from_cache: bool  # the same recipe was built before with the same parameters
    recipe: Recipe


def load_recipe(recipe_dir: Path) -> Recipe:
    """Read and check a recipe folder.

    Raises NotFoundError for a missing folder or file, InvalidError for what a recipe cannot say.
    """
    text_file, program = recipe_dir / "recipe.yaml", recipe_dir / "build"
    for path in (recipe_dir, text_file, program):
        if not path.exists():
            raise NotFoundError(
                f"image recipe {str(recipe_dir)!r} has no file {str(path)!r}"
                if path is not recipe_dir
                else f"image recipe {str(recipe_dir)!r} does not exist",
                hint="a recipe is a folder with recipe.yaml and a program `build`; see images/tiny",
            )
    if not os.access(program, os.X_OK):
        raise InvalidError(
            f"{str(program)!r} cannot be run", hint=f"run: chmod +x {str(program)!r}"
        )
    try:
        document = parse_yaml(text_file.read_text(encoding="utf-8"), str(text_file))
        return Recipe.model_validate(document.value)
    except ValidationError as error:
        faults = (
            f"{'.'.join(str(step) for step in fault['loc']) or 'recipe'}: {fault['msg']}"
            for fault in error.errors()
        )
        raise InvalidError(
            f"{str(text_file)!r} is not a recipe", detail="\n".join(faults)
        ) from error
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidError(f"cannot read {str(text_file)!r}", detail=str(error)) from error


def build_image(
    recipe_dir: Path,
    *,
    version: VersionNumber,
    parameters: Mapping[str, str],
    greeting: str,
    settings: Settings,
    say: Callable[[str], None] = lambda _: None,
) -> BuiltImage:
    """Build an image, or find the one that was built from the very same inputs.

    Waits for another build of the same recipe. Raises InvalidError for an unknown parameter,
    NotFoundError for a missing recipe, HostError for missing tools, LabError for a failed build.
    """
    recipe = load_recipe(recipe_dir)
    chosen = _choose(recipe, parameters)
    key = _key(recipe_dir, recipe, version=version, parameters=chosen, greeting=greeting)
    builds = settings.cache_dir / "builds"
    image, record = builds / f"{key}.qcow2", builds / f"{key}.json"
    with _only_build_of(settings, recipe.name, say):
        if image.exists():
            build_id = str(json.loads(record.read_text(encoding="utf-8"))["buildId"])
            return BuiltImage(build_id=build_id, path=image, from_cache=True, recipe=recipe)
        _require_tools(recipe)
        build_id = secrets.token_hex(6)
        work, part = builds / f"{key}.work", builds / f"{key}.qcow2.part"
        kept = settings.cache_dir / "recipes" / recipe.name
        for directory in (builds, kept):
            directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        _ensure_gone(work)  # of a build that was killed
        part.unlink(missing_ok=True)
        work.mkdir()
        log = builds / f"{key}.log"
        environment = {
            **os.environ,
            **{f"LABCTL_PARAM_{_upper(name)}": value for name, value in chosen.items()},
            "LABCTL_IMAGE_VERSION": str(version),
            "LABCTL_BUILD_ID": build_id,
            "LABCTL_GREETING": greeting,
            "LABCTL_OUTPUT": str(part),
            "LABCTL_WORK": str(work),
            "LABCTL_CACHE": str(kept),
            "PATH": f"{os.environ.get('PATH', '/usr/bin:/bin')}:{_MORE_PATH}",
        }
        say(f"building {recipe.name} {version}; log: {log}")
        try:
            _run_build(recipe_dir.absolute() / "build", log, environment)
            if not part.is_file():
                raise LabError(
                    f"build of recipe {recipe.name!r} ended well but wrote no image",
                    detail=_tail(log),
                    hint=f"the whole log: {log}",
                )
            record.write_text(
                json.dumps(
                    {
                        "recipe": recipe.name,
                        "version": str(version),
                        "buildId": build_id,
                        "parameters": chosen,
                        "greeting": greeting,
                    },
                    indent=2,
                ),
                encoding="utf-8",
            )
            part.chmod(0o444)
            part.rename(image)
        finally:
            part.unlink(missing_ok=True)
            _ensure_gone(work)
    return BuiltImage(build_id=build_id, path=image, from_cache=False, recipe=recipe)


def _run_build(program: Path, log: Path, environment: Mapping[str, str]) -> None:
    try:
        run(
            # The log is written while the build runs, so that a person can follow it.
            ["sh", "-c", 'exec "$0" >"$1" 2>&1', program, log],
            timeout=_TIMEOUT,
            environment=environment,
        )
    except CommandError as error:
        raise LabError(
            f"build of recipe {str(program.parent)!r} failed",
            detail=_tail(log) or error.brief,
            hint=f"the whole log: {log}",
        ) from error


def _choose(recipe: Recipe, given: Mapping[str, str]) -> dict[str, str]:
    """The value of every parameter. Raises InvalidError for unknown names and values."""
    for name, value in given.items():
        parameter = recipe.parameters.get(name)
        if parameter is None:
            raise InvalidError(
                f"recipe {recipe.name!r} has no parameter {name!r}",
                detail=f"it has: {', '.join(recipe.parameters) or 'none'}",
                hint="correct --set NAME=VALUE",
            )
        if parameter.values and value not in parameter.values:
            raise InvalidError(
                f"parameter {name!r} of recipe {recipe.name!r} cannot be {value!r}",
                detail=f"allowed: {', '.join(parameter.values)}",
                hint="correct --set NAME=VALUE",
            )
    return {
        name: given.get(name, parameter.default) for name, parameter in recipe.parameters.items()
    }


def _key(
    recipe_dir: Path,
    recipe: Recipe,
    *,
    version: VersionNumber,
    parameters: Mapping[str, str],
    greeting: str,
) -> str:
    """Hash all that a build depends on, save the packages of the day."""
    digest = hashlib.sha256()
    inputs: dict[str, Any] = {
        "version": str(version),
        "parameters": dict(sorted(parameters.items())),
        "greeting": greeting,
        "files": {},
    }
    for place in (".", *recipe.include):
        root = recipe_dir / place
        if not root.exists():
            raise NotFoundError(
                f"recipe {recipe.name!r} includes {str(root)!r}, which does not exist",
                hint="correct `include` in recipe.yaml",
            )
        files = [root] if root.is_file() else sorted(root.rglob("*"))
        for path in files:
            if "__pycache__" in path.parts or not (path.is_file() or path.is_symlink()):
                continue
            content = str(path.readlink()).encode() if path.is_symlink() else path.read_bytes()
            runs = path.lstat().st_mode & 0o100  # the rest of the mode is the umask of the checkout
            inputs["files"][f"{place}:{path.relative_to(root)}"] = (
                f"{runs:o} {hashlib.sha256(content).hexdigest()}"
            )
    digest.update(json.dumps(inputs, sort_keys=True).encode())
    return f"{recipe.name}-{version}-{digest.hexdigest()[:16]}"


def _require_tools(recipe: Recipe) -> None:
    path = f"{os.environ.get('PATH', '/usr/bin:/bin')}:{_MORE_PATH}"
    missing = {
        name: package for name, package in recipe.tools.items() if not shutil.which(name, path=path)
    }
    missing |= {name: package for name, package in recipe.files.items() if not Path(name).exists()}
    if missing:
        raise HostError(
            f"recipe {recipe.name!r} needs {', '.join(missing)}, which this host lacks",
            hint=f"run: apt-get install {' '.join(sorted(set(missing.values())))}",
        )
    if recipe.needs_root and os.geteuid() != 0:
        raise HostError(f"recipe {recipe.name!r} needs root", hint="run it with sudo")


@contextmanager
def _only_build_of(settings: Settings, name: str, say: Callable[[str], None]) -> Iterator[None]:
    """Two builds of one recipe share its cache, so they take turns."""
    make_passable(settings.state_dir)
    settings.locks_dir.mkdir(mode=0o700, exist_ok=True)
    file = os.open(
        settings.locks_dir / f"recipe-{name}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600
    )
    try:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say(f"waiting for another build of {name}")
            fcntl.flock(file, fcntl.LOCK_EX)
        yield
    finally:
        os.close(file)


def _ensure_gone(directory: Path) -> None:
    with contextlib.suppress(FileNotFoundError):
        shutil.rmtree(directory)


def _upper(name: str) -> str:
    return name.upper().replace("-", "_")


def _tail(log: Path) -> str:
    try:
        return log.read_text(encoding="utf-8", errors="replace").strip()[-_TAIL:]
    except FileNotFoundError:
        return ""
