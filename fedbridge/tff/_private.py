"""`tensorflow_federated.python...`: TFF's own sources, which some scripts import.

A name in them is the public name that it has in the table of eras; which file it stood in does not
matter, since files moved. Modules are made as they are asked for.
"""

import importlib.abc
import importlib.machinery
import importlib.util
import operator
import types
from typing import Any, NoReturn

from fedbridge.bridge import eras
from fedbridge.tff._errors import MissingNameError, runs

PREFIX = "tensorflow_federated.python"


class Finder(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Finds modules under TFF's private package; put into `sys.meta_path` by `install`."""

    def find_spec(
        self, fullname: str, path: Any, target: types.ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        """A module for every name of small letters.

        Raises:
            MissingNameError: For a class, which its module did not have.
        """
        if fullname != PREFIX and not fullname.startswith(f"{PREFIX}."):
            return None
        if not fullname.islower():
            _refuse(fullname)
        return importlib.util.spec_from_loader(fullname, self, is_package=True)

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> types.ModuleType:
        """An empty one."""
        return _Module(spec.name)

    def exec_module(self, module: types.ModuleType) -> None:
        """There is nothing to run."""


class _Module(types.ModuleType):
    def __getattr__(self, name: str) -> Any:
        import fedbridge.tff

        if self.__name__ == PREFIX and not name.startswith("__"):
            return getattr(fedbridge.tff, name)  # `from tensorflow_federated import python as tff`
        symbol = _symbol(f"{self.__name__}.{name}")
        entry = eras.lookup(symbol)
        # The public name of its time first: its calls differ from those of what replaced it.
        public = entry.name if entry and runs(entry.name) else eras.counterpart(symbol)
        if name.startswith("__") or not public:
            raise AttributeError(f"{self.__name__} has no {name}")
        return operator.attrgetter(public.removeprefix("tff."))(fedbridge.tff)

    def __call__(self, *args: Any, **kwargs: Any) -> NoReturn:
        _refuse(self.__name__)  # a function, taken for a module by `from ... import ...`


def _symbol(fullname: str) -> str:
    return fullname.replace("tensorflow_federated", "tff", 1)


def _refuse(fullname: str) -> NoReturn:
    raise MissingNameError(
        f"{_symbol(fullname)} is a private part of TFF that fedbridge.tff does not have; import a "
        "public name, which `fedbridge lint` says."
    )
