"""Sizes and storage of the fused evaluation of one architecture: which arrays it reads, how wide, at which place."""

from __future__ import annotations

from dataclasses import dataclass

from asenequip.kernels.paths import LayerPaths, dimension, layer_paths
from asenequip.model.spec import AllegroSpec
from asenequip.model.track import scalar_paths

DEGREE = 5
"""Degree of the radial polynomials."""


def unsupported(spec: AllegroSpec) -> str | None:
    """Why an architecture cannot be fused, or None if it can."""
    for name in ("latent", "readout"):
        if getattr(spec, f"{name}_depth") < 1:
            return f"its {name}_depth is 0"
        if getattr(spec, f"{name}_nonlinearity") != "silu":
            return f"its {name}_nonlinearity is not silu"
    return None


@dataclass(frozen=True)
class Plan:
    """Padded widths and the layout of the parameter block.

    Attributes
    ----------
    spec : AllegroSpec
    lanes : int
        Elements of a vector; every width is padded with zeros to a multiple of it.
    """

    spec: AllegroSpec
    lanes: int

    def padded(self, width: int) -> int:
        """Width rounded up to whole vectors."""
        return -(-width // self.lanes) * self.lanes

    @property
    def layers(self) -> tuple[LayerPaths, ...]:
        """Tensor-product layers."""
        return layer_paths(self.spec.l_max, self.spec.num_layers, self.spec.parity)

    @property
    def channels(self) -> int:
        """Padded tensor channels U."""
        return self.padded(self.spec.num_tensor_features)

    @property
    def hidden(self) -> int:
        """Padded hidden width H of the latents."""
        return self.padded(self.spec.latent_width)

    @property
    def readout(self) -> int:
        """Padded hidden width of the readout."""
        return self.padded(self.spec.readout_width)

    @property
    def env_irreps(self) -> int:
        """Environment weights per channel: one per irrep, or one."""
        return self.spec.l_max + 1 if self.spec.individual_irrep_weights else 1

    def columns(self) -> dict[str, tuple[int, int]]:
        """(start, width) of each block of a row of the radial table."""
        blocks = {"embed": (self.spec.l_max + 1) * self.channels, "env": self.env_irreps * self.channels}
        blocks.update({f"pre_{k}": self.hidden for k in range(self.spec.num_layers)})
        blocks["pre_r"] = self.readout
        columns, start = {}, 0
        for name, width in blocks.items():
            columns[name] = (start, width)
            start += width
        return columns

    @property
    def row(self) -> int:
        """Length of a row of the radial table."""
        return sum(width for _, width in self.columns().values())

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Shape of every array of the parameter block, in storage order; a name ending in T is the transpose."""
        spec, u, h, r = self.spec, self.channels, self.hidden, self.readout
        shapes: dict[str, tuple[int, ...]] = {}

        def both(name: str, rows: int, cols: int) -> None:
            shapes[name], shapes[f"{name}T"] = (rows, cols), (cols, rows)

        for k in range(spec.num_layers):
            both(f"q_{k}", u, h)
            both(f"h_{k}_r", h, r)
            for later in range(k + 1, spec.num_layers):
                both(f"h_{k}_{later}", h, h)
            for d in range(1, spec.latent_depth):
                both(f"mid_{k}_{d}", h, h)
            if k > 0:
                shapes[f"env_{k}"] = (self.env_irreps, h, u)
                shapes[f"env_{k}T"] = (self.env_irreps, u, h)
            shapes[f"path_{k}"] = (len(self.layers[k].paths), u)
        for d in range(1, spec.readout_depth):
            both(f"mid_r_{d}", r, r)
        shapes["out"] = (r,)
        return shapes

    def offsets(self) -> tuple[dict[str, int], int]:
        """Place of every array in the parameter block, and the block's length."""
        offsets, start = {}, 0
        for name, shape in self.shapes().items():
            offsets[name] = start
            size = 1
            for length in shape:
                size *= length
            start += self.padded(size)
        return offsets, start

    def chains(self) -> dict[str, LayerPaths]:
        """The couplings, in storage order: each layer in full, then its part that leads to 0e."""
        full = {f"full_{k}": layer for k, layer in enumerate(self.layers[:-1])}
        return {**full, **{f"scalar_{k}": scalar_paths(layer) for k, layer in enumerate(self.layers)}}

    def dim(self, layer: int) -> int:
        """Components of the input of a layer."""
        return dimension(self.layers[layer].irreps_in)
