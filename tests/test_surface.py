"""A name is public once: written out, re-exported as itself, and the same thing wherever it is."""

import ast
import importlib
import types
from pathlib import Path

import pytest

import fedbridge

PACKAGE = Path(fedbridge.__file__).parent
FACADES = [
    "fedbridge",
    "fedbridge.jax_core",
    "fedbridge.jax_core.metrics",
    "fedbridge.algorithms",
    "fedbridge.preprocessing",
    "fedbridge.tff_io",
]


def _exported(module):
    """Name to (module, original name) of what a facade's source re-exports."""
    tree = ast.parse(Path(importlib.import_module(module).__file__).read_text())
    imports = [node for node in tree.body if isinstance(node, ast.ImportFrom)]
    return {
        alias.asname: (node.module, alias.name)
        for node in imports
        for alias in node.names
        if alias.asname
    }


@pytest.mark.parametrize("module", FACADES)
def test_public_names_are_written_out(module):
    """Every name that one can reach is re-exported by hand; what is not, has an underscore."""
    package = importlib.import_module(module)
    tree = ast.parse(Path(package.__file__).read_text())
    defined = {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}
    tools = {
        alias.name
        for node in tree.body
        if isinstance(node, ast.ImportFrom) and node.module in {"typing", "collections.abc"}
        for alias in node.names
    }
    written = set(_exported(module)) | defined
    reachable = {
        name
        for name, value in vars(package).items()
        if not name.startswith("_") and not isinstance(value, types.ModuleType)
    }
    assert reachable - tools <= written
    assert all(hasattr(package, name) for name in written)


@pytest.mark.parametrize("module", FACADES)
def test_no_stars_and_no_second_list(module):
    source = Path(importlib.import_module(module).__file__).read_text()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.ImportFrom):
            assert all(alias.name != "*" for alias in node.names)
    assert "__all__" not in source


def test_a_name_means_one_thing_and_a_thing_has_one_name():
    by_name, by_thing = {}, {}
    for module in FACADES:
        package = importlib.import_module(module)
        for name in _exported(module):
            thing = getattr(package, name)
            assert by_name.setdefault(name, thing) is thing, f"{module}.{name} is another {name}"
            if isinstance(thing, type | types.FunctionType):
                known = by_thing.setdefault(id(thing), name)
                assert known == name, f"{module}: {name} is {known} under another name"


def test_implementation_files_of_the_core_are_private():
    # Three packages are public names themselves: fb.metrics, fb.aggregators, fb.optimizers.
    public = {"jax_core": [], "jax_core/metrics": [], "tff_io": [], "preprocessing": []}
    public |= {"jax_core/aggregators": [], "jax_core/optimizers": []}
    for layer, names in public.items():
        assert sorted(path.name for path in (PACKAGE / layer).glob("[!_]*.py")) == names


def test_what_is_loaded_on_demand_is_what_the_type_checkers_see():
    tree = ast.parse((PACKAGE / "__init__.py").read_text())
    (block,) = (node for node in tree.body if isinstance(node, ast.If))
    seen = {alias.asname for node in block.body for alias in node.names}
    named = {"tff_io": fedbridge._FROM_TFF_IO, "logs": fedbridge._FROM_LOGS}
    packages = {"datasets", "models", "partition", "tasks"}
    assert seen == packages.union(*named.values())
    for module, names in named.items():
        for name in names:
            found = getattr(importlib.import_module(f"fedbridge.{module}"), name)
            assert getattr(fedbridge, name) is found
