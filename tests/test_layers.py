"""Imports flow one way, and importing is cheap: read from the source, and seen in sys.modules."""

import ast
import json
import subprocess
import sys
from pathlib import Path

import pytest

import fedbridge

PACKAGE = Path(fedbridge.__file__).parent

# cli → tff → bridge → experiment → {tff_io, preprocessing, algorithms, models} → jax_core
BELOW = {
    "jax_core": set(),
    "algorithms": {"jax_core"},
    "models": {"jax_core"},
    "preprocessing": {"jax_core"},
    "tff_io": {"jax_core", "preprocessing"},
    "experiment": {"tff_io", "preprocessing", "algorithms", "models", "jax_core"},
    "tff": {"bridge", "experiment", "tff_io", "preprocessing", "algorithms", "models", "jax_core"},
    "bridge": {"experiment", "tff_io", "preprocessing", "algorithms", "models", "jax_core"},
    "cli": {
        "bridge",
        "tff",
        "experiment",
        "tff_io",
        "preprocessing",
        "algorithms",
        "models",
        "jax_core",
    },
}

# The training loop and what it is made of: whose rows, which clients, on which hosts, where its
# state is kept, the tasks that it is run on.
EXPERIMENT = {
    "checkpoint",
    "datasets",
    "distributed",
    "experiment",
    "logs",
    "partition",
    "samplers",
    "tasks",
}

# A method of a core type that hands over to the layer above it, when called. Each is meant.
HANDED_UP = {("jax_core/_arrays.py", "tff_io")}  # FederatedArrays.to_client_data

TENSORFLOW = {"keras", "tensorflow", "tensorflow_datasets", "tensorflow_federated", "tf_keras"}
HEAVY = TENSORFLOW | {"flax", "h5py", "matplotlib", "rich", "typer"}


def _layer(path):
    """The layer of a source file; None for the package's facade and its version."""
    name = _named(path.relative_to(PACKAGE).parts[0].removesuffix(".py"))
    return None if name.startswith("_") else name


def _named(name):
    if name.startswith("_cli"):
        return "cli"
    return "experiment" if name in EXPERIMENT else name


def _modules_named(node):
    """The absolute module names that an import statement names."""
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    if node.module == "fedbridge":
        return [f"fedbridge.{alias.name}" for alias in node.names]
    return [node.module or ""]


def _imports(path):
    """(module, line, whether it stands outside every function) of each import in a file."""

    def visit(node, top):
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.Import | ast.ImportFrom):
                yield from ((name, child.lineno, top) for name in _modules_named(child))
            inner = isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
            yield from visit(child, top and not inner)

    yield from visit(ast.parse(path.read_text()), True)


SOURCES = sorted(PACKAGE.rglob("*.py"))


def test_every_layer_is_known():
    assert {_layer(path) for path in SOURCES} - {None} <= set(BELOW)


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_flow_one_way(path):
    layer = _layer(path)
    if layer is None:
        return  # the facade re-exports from everywhere
    short = path.relative_to(PACKAGE).as_posix()
    for module, line, _ in _imports(path):
        root, _, rest = module.partition(".")
        target = _named(rest.partition(".")[0])
        if root != "fedbridge" or target in {layer, "_version"}:
            continue
        allowed = target in BELOW[layer] or (short, target) in HANDED_UP
        assert allowed, f"{short}:{line}: {layer} imports {module}"


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_tensorflow_is_imported_in_functions_of_the_border_only(path):
    short = path.relative_to(PACKAGE).as_posix()
    for module, line, top in _imports(path):
        if module.partition(".")[0] in TENSORFLOW:
            assert not top, f"{short}:{line}: {module} at module level"
            assert _layer(path) in {"tff_io", "bridge", "tff"}, f"{short}:{line}: {module}"


def test_algorithms_do_not_import_each_other():
    for path in (PACKAGE / "algorithms").glob("[!_]*.py"):
        for module, line, _ in _imports(path):
            assert not module.startswith("fedbridge.algorithms"), f"{path.name}:{line}: {module}"


# Without the facade, which loads several layers: an empty package of the same name and place.
_BARE = """
import json, sys, types
package = types.ModuleType("fedbridge")
package.__path__ = [{package!r}]
sys.modules["fedbridge"] = package
import {module}
print(json.dumps(sorted(sys.modules)))
"""


def _loaded(code):
    """What a fresh interpreter has loaded after some code."""
    run = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=False,
        cwd=PACKAGE.parent,
    )
    assert run.returncode == 0, run.stderr
    return set(json.loads(run.stdout.splitlines()[-1]))


def _roots(modules):
    return {module.partition(".")[0] for module in modules}


def test_importing_fedbridge_loads_nothing_heavy():
    loaded = _loaded("import json, sys, fedbridge; print(json.dumps(sorted(sys.modules)))")
    assert "optax" in loaded
    assert _roots(loaded) & HEAVY == set()
    # These two would double the time that it takes.
    heavy = ("fedbridge.tff_io", "jax.extend")
    assert not [name for name in loaded if name.startswith(heavy)]


@pytest.mark.parametrize(
    "module, may_load",
    [
        ("fedbridge.jax_core", set()),
        ("fedbridge.algorithms", set()),
        ("fedbridge.tff_io", set()),
        ("fedbridge.preprocessing", set()),
        ("fedbridge.models", {"flax", "rich"}),  # flax brings rich
        ("fedbridge.tff", set()),
        ("fedbridge.bridge.reference", set()),
        ("fedbridge.bridge.replay", {"rich"}),
        ("fedbridge.cli", {"rich", "typer"}),
    ],
)
def test_a_layer_loads_only_what_is_below_it(module, may_load):
    loaded = _loaded(_BARE.format(package=str(PACKAGE), module=module))
    assert _roots(loaded) & HEAVY <= may_load
    layer = module.split(".")[1]
    layers = {_named(name.split(".")[1]) for name in loaded if name.startswith("fedbridge.")}
    assert layers - {"_version"} <= BELOW[layer] | {layer}
