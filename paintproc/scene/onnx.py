"""ONNX graphs, run by onnxruntime on the CPU."""

from pathlib import Path
from typing import Any

from paintproc.errors import InputError


def open_graph(file: Path) -> Any:
    """An inference session. InputError where the file is no graph."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    try:
        return onnxruntime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])
    except Exception as error:
        # onnxruntime has an exception class of its own for every kind of damage
        first = str(error).strip().splitlines()[0][:200]
        raise InputError(f"{file} is damaged, or no ONNX graph: {first}") from error
