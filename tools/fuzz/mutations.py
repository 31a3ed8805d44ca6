"""Ways to break an ONNX file: bytes that flip or go missing, and graphs that make no sense."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator

import onnx
from onnx import AttributeProto, GraphProto, ModelProto, NodeProto, TensorProto, helper

Mutation = Callable[[random.Random, bytes], bytes]

_ABSURD = (-(2**63), -(2**31), -1, 0, 1, 2, 7, 255, 2**16, 2**31, 2**40, 2**62, 2**63 - 1)
_OPERATORS = sorted({schema.name for schema in onnx.defs.get_all_schemas()})
_COUNTS = (1, 1, 1, 2, 3)


def mutate(content: bytes, rng: random.Random) -> tuple[str, bytes]:
    """Applies one to three mutations.

    Returns:
        Their names, and the new content.
    """
    names = []
    for _ in range(rng.choice(_COUNTS)):
        name, mutation = rng.choice(_MUTATIONS)
        try:
            content = mutation(rng, content)
        except (IndexError, ValueError, TypeError, onnx.checker.ValidationError):
            continue  # nothing there to mutate, or a value that protobuf won't hold
        names.append(name)
    return "+".join(names) or "nothing", content


# -- bytes -----------------------------------------------------------------------------------------


def flip_bits(rng: random.Random, content: bytes) -> bytes:
    """Flips up to eight bits."""
    changed = bytearray(content)
    for _ in range(rng.randint(1, 8)):
        changed[rng.randrange(len(changed))] ^= 1 << rng.randrange(8)
    return bytes(changed)


def cut(rng: random.Random, content: bytes) -> bytes:
    """Drops the end."""
    return content[: rng.randrange(len(content))]


def overwrite(rng: random.Random, content: bytes) -> bytes:
    """Overwrites a part with zeros or noise."""
    start, size = _part(rng, content)
    noise = bytes(size) if rng.random() < 0.5 else rng.randbytes(size)
    return content[:start] + noise + content[start + size :]


def repeat(rng: random.Random, content: bytes) -> bytes:
    """Repeats a part."""
    start, size = _part(rng, content)
    return content[: start + size] + content[start:]


def remove(rng: random.Random, content: bytes) -> bytes:
    """Removes a part."""
    start, size = _part(rng, content)
    return content[:start] + content[start + size :]


def _part(rng: random.Random, content: bytes) -> tuple[int, int]:
    start = rng.randrange(len(content))
    return start, min(rng.randint(1, 64), len(content) - start)


# -- messages --------------------------------------------------------------------------------------


def on_model(change: Callable[[random.Random, ModelProto], None]) -> Mutation:
    """A mutation of the message in a file; a file that is none stays as it is."""

    def mutation(rng: random.Random, content: bytes) -> bytes:
        try:
            model = onnx.load_model_from_string(content)
        except Exception as error:  # protobuf's error is of a private class
            raise ValueError("not a message") from error
        change(rng, model)
        return bytes(model.SerializeToString())

    return mutation


def _graphs(graph: GraphProto) -> Iterator[GraphProto]:
    yield graph
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.HasField("g"):
                yield from _graphs(attribute.g)


def _graph(rng: random.Random, model: ModelProto) -> GraphProto:
    return rng.choice(list(_graphs(model.graph)))


def _node(rng: random.Random, model: ModelProto) -> NodeProto:
    node: NodeProto = rng.choice(_graph(rng, model).node)
    return node


def _attribute(rng: random.Random, model: ModelProto) -> AttributeProto:
    nodes = [node for graph in _graphs(model.graph) for node in graph.node]
    attribute: AttributeProto = rng.choice([a for node in nodes for a in node.attribute])
    return attribute


def _tensor(rng: random.Random, model: ModelProto) -> TensorProto:
    graph = _graph(rng, model)
    held = [a.t for node in graph.node for a in node.attribute if a.HasField("t")]
    tensor: TensorProto = rng.choice([*graph.initializer, *held])
    return tensor


def element_type(rng: random.Random, model: ModelProto) -> None:
    """Another element type for a tensor or a value."""
    graph, code = _graph(rng, model), rng.choice([*range(30), -1, 1000])
    values = [*graph.input, *graph.output, *graph.value_info]
    if rng.random() < 0.5:
        _tensor(rng, model).data_type = code
    else:
        rng.choice(values).type.tensor_type.elem_type = code


def dimensions(rng: random.Random, model: ModelProto) -> None:
    """An absurd size, or one more, for a tensor or a value."""
    size = rng.choice(_ABSURD)
    if rng.random() < 0.5:
        dims = _tensor(rng, model).dims
        if dims and rng.random() < 0.8:
            dims[rng.randrange(len(dims))] = size
        else:
            dims.append(size)
        return
    graph = _graph(rng, model)
    shape = rng.choice([*graph.input, *graph.output, *graph.value_info]).type.tensor_type.shape
    if shape.dim and rng.random() < 0.8:
        rng.choice(shape.dim).dim_value = size
    else:
        shape.dim.add().dim_value = size


def tensor_data(rng: random.Random, model: ModelProto) -> None:
    """Less, more or other data in a tensor, or data that lies elsewhere."""
    tensor = _tensor(rng, model)
    kind = rng.randrange(4)
    if kind == 0:
        tensor.raw_data = tensor.raw_data[: rng.randrange(len(tensor.raw_data) + 1)]
    elif kind == 1:
        tensor.raw_data = rng.randbytes(len(tensor.raw_data) + rng.choice((0, 1, 8)))
    elif kind == 2:
        tensor.float_data.extend([float("nan"), 1e38, 0.0])
    else:
        places = ("", "missing", "..", "/dev/zero", "model.onnx", "../model.onnx")
        entries = {"location": rng.choice(places), "offset": str(rng.choice(_ABSURD))}
        entries["length"] = str(rng.choice(_ABSURD))
        tensor.data_location = TensorProto.EXTERNAL
        for key, value in entries.items():
            tensor.external_data.add(key=key, value=value)


def wiring(rng: random.Random, model: ModelProto) -> None:
    """An input of a node reads another value: a later one too, which makes a cycle."""
    graph = _graph(rng, model)
    names = [name for node in graph.node for name in (*node.input, *node.output)]
    names += [value.name for value in (*graph.input, *graph.initializer)] + ["", "nowhere"]
    node = rng.choice(graph.node)
    side = node.input if node.input and rng.random() < 0.8 else node.output
    if rng.random() < 0.2:
        side.append(rng.choice(names))
    elif rng.random() < 0.2:
        del side[rng.randrange(len(side))]
    else:
        side[rng.randrange(len(side))] = rng.choice(names)


def node_order(rng: random.Random, model: ModelProto) -> None:
    """A node goes missing, comes twice, or somewhere else."""
    nodes = _graph(rng, model).node
    node = NodeProto()
    index = rng.randrange(len(nodes))
    node.CopyFrom(nodes[index])
    if rng.random() < 0.7:
        del nodes[index]
    if rng.random() < 0.7:
        nodes.insert(rng.randrange(len(nodes) + 1), node)


def operator(rng: random.Random, model: ModelProto) -> None:
    """Another operator or domain."""
    node = _node(rng, model)
    if rng.random() < 0.8:
        node.op_type = rng.choice(_OPERATORS)
    else:
        node.domain = rng.choice(("com.microsoft", "ai.onnx.ml", "onnx_cgmq", "nowhere"))


def attribute_value(rng: random.Random, model: ModelProto) -> None:
    """An absurd value for an attribute, or another type, or one attribute less."""
    attribute = _attribute(rng, model)
    number = rng.choice(_ABSURD)
    kind = rng.randrange(5)
    if kind == 0:
        attribute.type = rng.choice(list(AttributeProto.AttributeType.values()))
    elif kind == 1:
        attribute.name = rng.choice(("axis", "pads", "value", "to", "group", "perm", ""))
    elif attribute.ints:
        attribute.ints[rng.randrange(len(attribute.ints))] = number
    elif attribute.floats:
        attribute.floats[rng.randrange(len(attribute.floats))] = rng.choice((1e38, -1.0, 0.0))
    elif attribute.type == AttributeProto.STRING:
        attribute.s = rng.randbytes(4)
    else:
        attribute.i, attribute.f = number, float(number)


def versions(rng: random.Random, model: ModelProto) -> None:
    """Another opset or IR version, or a domain imported twice or not at all."""
    number = rng.choice((*range(28), -1, 1000, 2**62))
    if rng.random() < 0.7:
        rng.choice(model.opset_import).version = number
    elif rng.random() < 0.5:
        model.ir_version = number
    else:
        model.opset_import.add(domain=rng.choice(("", "ai.onnx", "other")), version=number)


def interface(rng: random.Random, model: ModelProto) -> None:
    """Inputs, outputs or initializers go missing, come twice, or get another's name."""
    graph = _graph(rng, model)
    values = rng.choice((graph.input, graph.output, graph.initializer))
    index = rng.randrange(len(values))
    if rng.random() < 0.4:
        del values[index]
    elif rng.random() < 0.5:
        values.add().CopyFrom(values[index])
    else:
        names = [*graph.node[0].output, *graph.node[0].input, "", "x"]
        values[index].name = rng.choice(names)


def nesting(rng: random.Random, model: ModelProto) -> None:
    """A chain of functions that call each other twice, or themselves, or a deep If."""
    depth = rng.choice((1, 3, 40))
    output = rng.choice(model.graph.node).output[0]
    if rng.random() < 0.5:
        body = helper.make_graph([helper.make_node("Identity", [output], ["deep"])], "b", [], [])
        for level in range(depth):
            body.output.add(name="deep")
            node = helper.make_node("If", ["nowhere"], ["deep"], then_branch=body, else_branch=body)
            body = helper.make_graph([node], f"b{level}", [], [])
            if level > 8:
                break  # both branches: the file doubles with every level
        model.graph.node.append(body.node[0])
        return
    opsets = [helper.make_opsetid("nest", 1), helper.make_opsetid("", 18)]
    model.opset_import.add(domain="nest", version=1)
    for level in range(depth):
        callee = f"f{level + 1 if level + 1 < depth else rng.choice((0, level))}"
        nodes = [
            helper.make_node(callee, ["x"], ["a"], domain="nest"),
            helper.make_node(callee, ["a"], ["y"], domain="nest"),
        ]
        if level + 1 == depth and rng.random() < 0.7:
            nodes = [helper.make_node("Neg", ["x"], ["y"])]
        model.functions.append(
            helper.make_function("nest", f"f{level}", ["x"], ["y"], nodes, opsets)
        )
    model.graph.node.append(helper.make_node("f0", [output], ["nested"], domain="nest"))


_CHANGES = (
    element_type,
    dimensions,
    tensor_data,
    wiring,
    node_order,
    operator,
    attribute_value,
    versions,
    interface,
    nesting,
)
_MUTATIONS: tuple[tuple[str, Mutation], ...] = (
    *((mutation.__name__, mutation) for mutation in (flip_bits, cut, overwrite, repeat, remove)),
    *((change.__name__, on_model(change)) for change in _CHANGES),
)
