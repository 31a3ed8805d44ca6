"""Equalizes channels: moves factors between operators, so that quantization errors get smaller.

All channels of an activation share one range. If one channel reaches a hundred times as far as the
others, these get few codes. Between two operators with constants, a positive factor for each
channel can move: the first divides its channel by the factor, and those that read the channel
multiply their weights by it. The model computes the same. With powers of two not even a float is
rounded otherwise.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np
import onnx_ir as ir

from onnx_cgmq.contract.decisions import Verdict, decide
from onnx_cgmq.data.samples import Samples
from onnx_cgmq.data.source import open_data
from onnx_cgmq.errors import ModelError
from onnx_cgmq.graph.affine import Constant
from onnx_cgmq.graph.emitter import set_constant
from onnx_cgmq.graph.files.load import ModelLike, load_model
from onnx_cgmq.ort.channel_statistics import ChannelStatistics, channel_statistics
from onnx_cgmq.preparation.equalization_factors import Reader, best_factors
from onnx_cgmq.preparation.equalization_sites import NoSite, Site, find_site
from onnx_cgmq.preparation.prepare import is_prepared, prepare_in_place

_SAMPLES: Final = 256
_BATCH_SIZE: Final = 8

_LARGEST_SHARE: Final = 0.9
"""What is left of the predicted error at most if factors are moved. Our choice."""


def equalize(model: ModelLike, data: Any) -> ir.Model:
    """Moves factors of channels between operators, so that quantization errors get smaller.

    Args:
        model: Path, ``onnx.ModelProto`` or ``onnx_ir.Model``; it is not changed. A model that is
            not prepared is prepared first (:func:`~onnx_cgmq.preparation.prepare.prepare`).
        data: Samples, of which at most 256 are run.

    Returns:
        The prepared model, with other constants. It computes the same.

    Raises:
        ModelError: The model can't be read or prepared.
        DataError: The data can't be read or does not fit the model.
    """
    equalized = load_model(model)
    if not is_prepared(equalized):
        prepare_in_place(equalized)
    equalize_in_place(equalized, open_data(data, equalized))
    return equalized


def equalize_in_place(model: ir.Model, samples: Samples) -> None:
    """Does the work of :func:`equalize` on a prepared model that the caller owns.

    A factor of each channel moves from a MAC node, or a norm with a constant scale, to all MAC
    nodes that read the channels. Between them are only nodes that keep positive factors, such as
    Relu and MaxPool. Factors move where the error of the readers' outputs at 8 bits is predicted to
    get smaller by a tenth at least. Subgraphs, and weights that several nodes read, are left alone.
    """
    sites = []
    for node in model.graph:
        site = find_site(node)
        if isinstance(site, NoSite):
            decide(node.name, Verdict.LEFT, f"its channels can't be scaled: {site.why}")
        elif site is not None:
            sites.append(site)
    if not sites:
        return
    places = [place for site in sites for read in site.readings for place in read.places]
    axes = {place.value: place.channels.axis for place in places}
    try:
        batches = samples.drawn(_SAMPLES).batches(_BATCH_SIZE)
        statistics = channel_statistics(model, axes, batches)
    except ModelError as error:  # the mirror may run it nevertheless
        for site in sites:
            decide(site.source.name, Verdict.LEFT, f"its channels can't be measured: {error}")
        return
    for site in sites:
        _equalize_site(model, site, statistics)


def _equalize_site(
    model: ir.Model, site: Site, statistics: Mapping[ir.Value, ChannelStatistics]
) -> None:
    name, readers = site.source.name, _readers(site, statistics)
    if not all(reader.has_signal for reader in readers):
        decide(name, Verdict.LEFT, "its channels are all zero, or not finite, on the data")
        return
    factors, share = best_factors(readers)
    if share > _LARGEST_SHARE:
        decide(name, Verdict.LEFT, "factors of its channels would win too little")
        return
    _move(model, site, factors)
    read = ", ".join(dict.fromkeys(f"'{reading.mac.node.name}'" for reading in site.readings))
    decide(
        name,
        Verdict.REWRITTEN,
        f"with other factors of its channels quantization is predicted to leave {share:.0%} of the "
        f"error of {read}",
    )


def _readers(site: Site, statistics: Mapping[ir.Value, ChannelStatistics]) -> Sequence[Reader]:
    return [
        Reader.of(
            [statistics[place.value] for place in read.places],
            read.mac.kernels(),
            read.places[-1].channels.count,
        )
        for read in site.readings
    ]


def _move(model: ir.Model, site: Site, factors: Constant) -> None:
    """Divides the channels of a site by factors, and multiplies all weights that read them."""
    if site.mac is not None:
        _set(model, site.source, 1, site.mac.scaled_outputs(1 / factors))
    for vector in site.vectors:
        _set(model, vector.node, vector.index, vector.divided(factors))
    for read in site.readings:
        repeated = np.repeat(factors, read.places[-1].channels.repeat)
        _set(model, read.mac.node, 1, read.mac.scaled_inputs(repeated))


def _set(model: ir.Model, node: ir.Node, index: int, array: Constant) -> None:
    set_constant(model, node, index, array.astype(np.float32), f"{node.name}.equalized")
