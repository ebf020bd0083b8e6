"""What the namespace says about names that it has not, and about what it leaves out."""

import operator
import types
import warnings
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, NoReturn

from fedbridge.bridge import eras
from fedbridge.jax_core import FedbridgeError
from fedbridge.tff_io import Constraint


class MissingNameError(FedbridgeError, AttributeError):
    """A name of TFF that fedbridge does not have, or one that no TFF ever had."""


class Note(UserWarning):
    """What a script asks for and gets in another way, or not at all; shown once a place."""


def note(text: str) -> None:
    """Shows a note, once for each place that it is written for."""
    warnings.warn(text, Note, stacklevel=3)


def note_constraint(constraint: Constraint) -> None:
    """Leaves a constraint of a Keras model out, as TFF does, and says so once for all of them."""
    note("constraints of weights as in TFF, never applied: see docs/differences")


def missing(
    package: str, instead: Mapping[str, str] = MappingProxyType({})
) -> Callable[[str], Any]:
    """The `__getattr__` of a package of the namespace: says why there is no such name.

    Args:
        package: `"tff.learning"`, say.
        instead: What to write in place of names of it, or why they are not there.

    Example:
        >>> missing("tff.learning")("build_fedavg")
        Traceback (most recent call last):
        fedbridge.tff._errors.MissingNameError: no TFF has tff.learning.build_fedavg; the nearest \
name is tff.learning.algorithms.build_weighted_fed_avg.
    """

    def __getattr__(name: str) -> Any:  # noqa: N807 -- modules get it as theirs
        if name.startswith("__"):
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        symbol = f"{package}.{name}"
        if symbol not in eras.table() and eras.is_package(symbol):
            return empty_package(symbol)
        if name in instead:
            raise MissingNameError(f"{symbol} is not in fedbridge.tff: {instead[name]}.")
        refuse(symbol)

    return __getattr__


def empty_package(symbol: str) -> types.ModuleType:
    """A package of TFF of which nothing is here: its names are refused one by one."""
    package = types.ModuleType(symbol, f"`{symbol}`: nothing of it runs on JAX yet.")
    package.__getattr__ = missing(symbol)  # type: ignore[attr-defined]
    return package


def refuse(symbol: str) -> NoReturn:
    """Says what is known of a name that the namespace does not have.

    Raises:
        MissingNameError: Always.
    """
    entry = eras.table().get(symbol)
    if entry is not None:
        why = f" ({entry.note})" if entry.note else ""
        instead = f"; write {entry.becomes}" if entry.becomes not in ("", symbol) else ""
        if entry.status == eras.GONE:
            cure = instead or "; `fedbridge lint` says what else the script needs"
            raise MissingNameError(f"{symbol} is no longer in TFF{why}{cure}.")
        raise MissingNameError(
            f"{symbol} is not in fedbridge.tff yet{why}; docs/migration.md lists what is, and "
            "`fedbridge check` runs a script under the real TFF."
        )
    near = eras.nearest(symbol)
    cure = f"the nearest name is {near}" if near else "`fedbridge lint` lists the names"
    raise MissingNameError(f"no TFF has {symbol}; {cure}.")


def public_function(name: str) -> Callable[..., Any] | None:
    """The one function or class of the namespace that has this name; None where there is none.

    Example:
        >>> public_function("build_weighted_fed_avg").__name__, public_function("print")
        ('build_weighted_fed_avg', None)
    """
    import fedbridge.tff

    for symbol in eras.table():
        package, _, last = symbol.partition(".")[2].rpartition(".")
        if last == name and runs(symbol):
            found = operator.attrgetter(f"{package}.{name}" if package else name)(fedbridge.tff)
            return found if callable(found) else None
    return None


def runs(symbol: str) -> bool:
    """Whether the namespace has a name of TFF.

    Example:
        >>> runs("tff.learning.algorithms.build_fed_eval"), runs("tff.jax.computation")
        (True, False)
    """
    import fedbridge.tff

    public = eras.counterpart(symbol) if eras.is_private(symbol) else symbol
    package, _, name = public.partition(".")[2].rpartition(".")
    try:
        found = operator.attrgetter(package)(fedbridge.tff) if package else fedbridge.tff
    except AttributeError:
        return False
    return name in dir(found) or hasattr(found, name)  # what is made on first use is not made
