"""The cache of compiled programs that the command line keeps."""

import os
import subprocess
import sys

COMPILE = """
from fedbridge.bridge.programs import keep_programs
keep_programs()
import jax, jax.numpy as jnp
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
jax.jit(lambda x: jnp.linalg.qr(x @ x)[0])(jnp.ones((8, 8)))
"""


def kept(folder, **environment):
    """How many files a program leaves behind."""
    others = {k: v for k, v in os.environ.items() if k != "JAX_COMPILATION_CACHE_DIR"}
    environment = others | {"FEDBRIDGE_CACHE": str(folder)} | environment
    subprocess.run([sys.executable, "-c", COMPILE], env=environment, check=True)
    return sum(path.is_file() for path in folder.rglob("*"))


def test_programs_are_kept_and_found_again(tmp_path):
    first = kept(tmp_path)
    assert first > 0
    assert (tmp_path / "programs").is_dir()
    assert kept(tmp_path) == first


def test_a_cache_of_ones_own_stays(tmp_path):
    own = tmp_path / "own"
    kept(tmp_path / "ours", JAX_COMPILATION_CACHE_DIR=str(own))
    assert not (tmp_path / "ours").exists()
    assert kept(tmp_path / "none", JAX_COMPILATION_CACHE_DIR="") == 0
