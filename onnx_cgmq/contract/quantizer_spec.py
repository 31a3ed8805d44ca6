"""The spec of one gated quantizer: the contract between the graph, the mirror and the writer."""

from __future__ import annotations

import json
from dataclasses import dataclass

from onnx_cgmq.contract.bits import Granularity, GridForm, Ladder, Role, in_blocks
from onnx_cgmq.errors import ModelError


@dataclass(frozen=True)
class QuantizerSpec:
    """One gated quantizer; stored as JSON in the ``metadata_props`` of its node.

    Attributes:
        tensor: Name of the quantized value in the prepared float graph.
        role: Weight, bias or activation.
        form: Kind of its integer grid.
        granularity: Whether there is one gate, or one per channel or element.
        ladder: The widths that its gates may select.
        shape: Shape of the tensor; the batch of an activation (axis 0) is 1.
        axis: Channel axis if there is a range for each channel, else ``None``.
        channel_ranges: Whether a tensor with one gate has a range for each channel.
        block: How many neighbours of a channel share a range, in a matrix whose channels have a
            range for each block; ``None`` without blocks.
        exact: Whether steps up to 8 bits are rounded, so that float32 sums of products are exact:
            to powers of two for activations, to three significant bits for weights.
    """

    tensor: str
    role: Role
    form: GridForm
    granularity: Granularity
    ladder: Ladder
    shape: tuple[int, ...]
    axis: int | None = None
    channel_ranges: bool = False
    exact: bool = False
    block: int | None = None

    @property
    def has_channels(self) -> bool:
        """Whether each channel has a range of its own, or one for each of its blocks."""
        return self.granularity is Granularity.CHANNEL or self.channel_ranges

    @property
    def gate_shape(self) -> tuple[int, ...]:
        """Shape of the gate, which broadcasts against the tensor.

        It is ``()`` for ``tensor``, ``[1, .., C, .., 1]`` (full rank) for ``channel``, and
        ``shape`` for ``element``.
        """
        if self.granularity is Granularity.TENSOR:
            return ()
        return self.shape if self.granularity is Granularity.ELEMENT else self.range_item_shape

    @property
    def range_item_shape(self) -> tuple[int, ...]:
        """Shape of the range of one width: ``()``, or ``[1, .., C, .., 1]`` if channels differ.

        With blocks it is :attr:`view_shape` with a 1 for the elements of a block.
        """
        if self.block_axis is not None:
            return tuple(1 if i == self.block_axis else n for i, n in enumerate(self.view_shape))
        if self.has_channels:
            assert self.axis is not None
            return tuple(size if i == self.axis else 1 for i, size in enumerate(self.shape))
        return ()

    @property
    def view_shape(self) -> tuple[int, ...]:
        """The shape to which the tensor is reshaped before its ranges broadcast to it."""
        return in_blocks(self.shape, self.axis, self.block)

    @property
    def block_axis(self) -> int | None:
        """The axis of :attr:`view_shape` that counts the elements of a block, if any."""
        return None if self.block is None or self.axis is None else 2 - self.axis

    @property
    def range_shape(self) -> tuple[int, ...]:
        """Shape of the range parameters ``low`` and ``high``, whose axis 0 counts widths.

        ``tensor`` and ``channel`` gates have a range for each quantized width, ascending.
        ``element`` gates share one range (axis 0 has length 1), so that the grids are nested.
        """
        shared = self.granularity is Granularity.ELEMENT
        count = 1 if shared else max(1, len(self.ladder.quantized))
        return (count, *self.range_item_shape)

    def range_index(self, width: int) -> int:
        """The index on axis 0 of ``low`` and ``high`` that belongs to a quantized width."""
        return 0 if self.granularity is Granularity.ELEMENT else self.ladder.quantized.index(width)

    def to_json(self) -> str:
        """Makes JSON text of the spec, on one line."""
        fields = {
            "tensor": self.tensor,
            "role": self.role.value,
            "form": self.form.value,
            "granularity": self.granularity.value,
            "widths": self.ladder.widths,
            "shape": self.shape,
            "axis": self.axis,
            "channel_ranges": self.channel_ranges,
            "exact": self.exact,
            **({"block": self.block} if self.block is not None else {}),
        }
        return json.dumps(fields, separators=(",", ":"))

    @classmethod
    def from_json(cls, text: str) -> QuantizerSpec:
        """Reads a spec from the text of :meth:`to_json`.

        Raises:
            ModelError: The grid is of a kind that there is no more.
        """
        fields = json.loads(text)
        if fields["form"] not in [form.value for form in GridForm]:
            raise ModelError(
                f"the quantizer of '{fields['tensor']}' has a grid of the kind '{fields['form']}', "
                "which this onnx-cgmq does not have; insert the gates again with insert_gates()"
            )
        return cls(
            tensor=fields["tensor"],
            role=Role(fields["role"]),
            form=GridForm(fields["form"]),
            granularity=Granularity(fields["granularity"]),
            ladder=Ladder(tuple(fields["widths"])),
            shape=tuple(fields["shape"]),
            axis=fields["axis"],
            channel_ranges=fields.get("channel_ranges", False),
            exact=fields.get("exact", False),
            block=fields.get("block"),
        )
