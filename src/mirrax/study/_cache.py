"""Compiled programs kept on disk, so that a recipe run again starts at once."""

import os
from pathlib import Path


def keep_compiled() -> None:
    """Keeps compiled programs in the user's cache folder.

    JAX's own setting, `JAX_COMPILATION_CACHE_DIR`, goes first; an empty one keeps nothing.
    """
    import jax

    if "JAX_COMPILATION_CACHE_DIR" in os.environ:
        return
    home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    jax.config.update("jax_compilation_cache_dir", str(home / "mirrax" / "compiled"))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.5)
