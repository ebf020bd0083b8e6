"""Compiled programs, kept for the next command."""

import hashlib
import os
import platform
import re
from pathlib import Path


def keep_programs() -> None:
    """Lets jax keep what it compiles in fedbridge's cache folder, and find it there.

    A user's own `JAX_COMPILATION_CACHE_DIR` is left as it is, also where it is empty: none.
    """
    import jax

    from fedbridge.tff_io import cache_folder

    folder = cache_folder(True)
    if "JAX_COMPILATION_CACHE_DIR" in os.environ or folder is None:
        return
    jax.config.update("jax_compilation_cache_dir", str(folder / "programs" / _processor()))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.02)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)


def _processor() -> str:
    """Programs belong to a kind of processor, and a cache folder may be seen from several."""
    kind = f"{platform.machine()} {platform.processor()}"
    if (cpuinfo := Path("/proc/cpuinfo")).exists():
        lines = re.findall(r"(?m)^(?:flags|Features|model name)\s*:.*$", cpuinfo.read_text())
        kind += " ".join(sorted(set(lines)))
    return hashlib.sha256(kind.encode()).hexdigest()[:12]
