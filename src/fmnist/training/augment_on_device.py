"""Apply the plan of an epoch under JAX, inside a compiled program."""

from functools import partial

import jax
import jax.numpy as jnp

from fmnist.config import IMAGE_SIZE
from fmnist.training.augment import Plan


def apply_plan(images: jax.Array, plan: Plan, shift: int) -> jax.Array:
    """Return the images of an epoch, as `augment.apply_plan` does. Same arguments and result, but on the device."""
    selected = images[plan.indices]
    if plan.is_flipped is not None:
        selected = jnp.where(plan.is_flipped[:, jnp.newaxis, jnp.newaxis], selected[:, :, ::-1], selected)
    if plan.offsets is not None:
        padded = jnp.pad(selected, ((0, 0), (shift, shift), (shift, shift)))
        cut = partial(jax.lax.dynamic_slice, slice_sizes=(IMAGE_SIZE, IMAGE_SIZE))
        selected = jax.vmap(cut)(padded, (plan.offsets[:, 0], plan.offsets[:, 1]))
    if plan.cutmix is None:
        return selected
    pixels = jnp.arange(IMAGE_SIZE)
    top, bottom, left, right = (bound[:, jnp.newaxis] for bound in plan.cutmix.rectangles.T)
    is_row, is_column = (pixels >= top) & (pixels < bottom), (pixels >= left) & (pixels < right)
    is_replaced = is_row[:, :, jnp.newaxis] & is_column[:, jnp.newaxis, :]
    return jnp.where(is_replaced, selected[plan.cutmix.partners], selected)
