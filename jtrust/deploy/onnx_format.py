"""`--format onnx`: one file for ONNX Runtime, any batch size."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from jtrust import checks
from jtrust.deploy.acting import Acting, Array
from jtrust.deploy.extras import import_extra
from jtrust.deploy.onnx_graph import BATCH, Unsayable
from jtrust.deploy.onnx_writer import OPSET, to_graph, trace
from jtrust.version import __version__

_MOST_BYTES = 2**31 - 2**20  # protocol buffers end at 2 GiB


def write(path: Path, acting: Acting, properties: Mapping[str, str]) -> None:
    """Writes a policy.

    Args:
      path: where to.
      acting: what it does.
      properties: what goes into the file's own metadata.

    Raises:
      BadArgument: a network that cannot be said in ONNX, or a missing extra.
    """
    import_extra("onnx")
    import_extra("onnxruntime")
    size = sum(x.nbytes for x in jax.tree.leaves(acting.policy.params))
    if size > _MOST_BYTES:
        raise Unsayable(
            f"the policy has {size / 2**30:.1f} GiB of parameters, and an ONNX file holds 2",
            "take --format stablehlo",
        )
    path.write_bytes(to_model(acting, properties).SerializeToString())


def to_model(acting: Acting, properties: Mapping[str, str] | None = None) -> Any:
    """An `onnx.ModelProto`, checked by ONNX's own checker and its shape inference.

    Raises:
      Unsayable: an operation that it cannot say.
    """
    import onnx
    from onnx import helper

    inputs, outputs = acting.inputs, acting.outputs
    jaxpr = trace(acting, [(x.shape, x.dtype) for x in inputs])
    graph = to_graph(jaxpr, [x.name for x in inputs], [x.name for x in outputs])
    found = helper.make_graph(
        graph.nodes, "policy", [_declared(x) for x in inputs], [_declared(x) for x in outputs],
        list(graph.initializers.values()),
    )
    opsets = [helper.make_opsetid("", OPSET)]
    model = helper.make_model(
        found, opset_imports=opsets, ir_version=helper.find_min_ir_version_for(opsets),
        producer_name="jtrust", producer_version=__version__,
    )
    helper.set_model_props(model, dict(properties or {}))
    try:
        onnx.checker.check_model(model, full_check=True)
        inferred = onnx.shape_inference.infer_shapes(model, True, True, True)
    except Exception as error:  # its exceptions share no other class
        said = " ".join(str(error).split())[:200]
        raise Unsayable(f"ONNX's checker refuses what was written: {said}") from error
    _check_shapes(inferred, outputs)
    return model


def _declared(x: Array) -> Any:
    from onnx import helper

    kind = helper.np_dtype_to_tensor_dtype(x.dtype)
    return helper.make_tensor_value_info(x.name, kind, [BATCH, *x.shape], x.meaning)


def _check_shapes(inferred: Any, outputs: list[Array]) -> None:
    """Raises `Unsayable` where ONNX finds other shapes than JAX."""
    for x, found in zip(outputs, inferred.graph.output, strict=True):
        shape = [d.dim_param or d.dim_value for d in found.type.tensor_type.shape.dim]
        if shape != [BATCH, *x.shape]:
            raise Unsayable(f"{x.name} came out as {shape}, not as {[BATCH, *x.shape]}")


class Runtime:
    """An ONNX file in ONNX Runtime, on the CPU.

    Args:
      path: of the file.
      threads: that one call uses.

    Raises:
      BadArgument: a missing extra, or operations that this ONNX Runtime lacks.
    """

    def __init__(self, path: Path, threads: int = 1):
        onnxruntime = import_extra("onnxruntime")
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.log_severity_level = 4  # what it cannot do, it raises too
        self.name = f"onnxruntime {onnxruntime.__version__}"
        try:
            self._session = onnxruntime.InferenceSession(
                path.read_bytes(), options, providers=["CPUExecutionProvider"]
            )
        except Exception as error:  # its exceptions share no other class
            said = " ".join(str(error).split())[:300]
            raise checks.BadArgument(
                "format", "onnx", f"{self.name} does not run the network: {said}; take --format "
                "stablehlo",
            ) from error
        self._names = [x.name for x in self._session.get_inputs()]

    def __call__(self, *arrays: np.ndarray) -> list[np.ndarray]:
        return self._session.run(None, dict(zip(self._names, arrays, strict=True)))

    def batches(self, batches: Sequence[Sequence[np.ndarray]]) -> list[list[np.ndarray]]:
        """The outputs of several batches."""
        return [self(*batch) for batch in batches]
