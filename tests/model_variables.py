"""Shapes, sizes and random variables of a network, for tests."""

from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np


def shapes(module: nn.Module, *inputs, **kwargs) -> dict:
    """The variables of a module as `jax.ShapeDtypeStruct`."""
    return jax.eval_shape(partial(module.init, **kwargs), jax.random.key(0), *inputs)


def random_variables(module: nn.Module, *inputs, **kwargs) -> dict:
    """Random variables with positive variances, without the module's initialisers, which take long to compile."""
    rng = np.random.default_rng(1)

    def values(path, leaf):
        drawn = rng.normal(scale=0.3, size=leaf.shape)
        return jnp.float32(0.5 + np.abs(drawn) if path[-1].key == "var" else drawn)

    return jax.tree.map_with_path(values, shapes(module, *inputs, **kwargs))


def count(tree) -> int:
    """The number of scalars in a tree of arrays."""
    return sum(leaf.size for leaf in jax.tree.leaves(tree))


def same(first, second) -> bool:
    """Whether all arrays of two trees are equal."""
    return jax.tree.all(jax.tree.map(np.array_equal, first, second))
