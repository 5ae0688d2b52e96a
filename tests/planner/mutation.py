"""Loads the planner with one text replaced, from memory: no compiled file is read or left."""

import functools
import sys
from collections.abc import Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from importlib.util import spec_from_file_location
from pathlib import Path
from types import CodeType, ModuleType

PACKAGE = "labctl.planner"
FOLDER = Path(__file__).parents[2] / "labctl" / "planner"


class Mutant(MetaPathFinder, Loader):
    """Finds the planner, with a mistake in one file, as a package of the name that it is given."""

    def __init__(self, package: str, file: str, text: str, becomes: str) -> None:
        code = (FOLDER / file).read_text()
        assert text in code, f"{file} has no {text!r}; mend this list"
        self.package = package
        self.changed = (FOLDER / file).stem
        self.loaded: set[str] = set()
        self._code = _compile(package, FOLDER / file, code.replace(text, becomes))

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname != self.package and not fullname.startswith(f"{self.package}."):
            return None
        is_package = fullname == self.package
        stem = "__init__" if is_package else fullname.removeprefix(f"{self.package}.")
        file = FOLDER / f"{stem}.py"
        if not file.exists():
            return None
        places = [] if is_package else None
        return spec_from_file_location(
            fullname, file, loader=self, submodule_search_locations=places
        )

    def exec_module(self, module: ModuleType) -> None:
        assert module.__file__ is not None
        stem = Path(module.__file__).stem
        is_changed = stem == self.changed
        exec(self._code if is_changed else compile_original(self.package, stem), module.__dict__)
        self.loaded.add(stem)

    @property
    def is_loaded(self) -> bool:
        """Has anybody imported the file with the mistake?"""
        return self.changed in self.loaded

    def forget(self) -> None:
        """Let nobody get a module of this package any more."""
        sys.meta_path.remove(self)
        for name in [*sys.modules]:
            if name == self.package or name.startswith(f"{self.package}."):
                del sys.modules[name]


@functools.cache
def compile_original(package: str, stem: str) -> CodeType:
    """A module of the planner as it is, for a package of this name."""
    file = FOLDER / f"{stem}.py"
    return _compile(package, file, file.read_text())


def _compile(package: str, file: Path, code: str) -> CodeType:
    return compile(code.replace(PACKAGE, package), str(file), "exec", dont_inherit=True)
