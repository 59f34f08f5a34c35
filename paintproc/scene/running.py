"""Running networks: ONNX graphs on the CPU, and what is said when memory does not suffice."""

import contextlib
import functools
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from paintproc.errors import DeviceError, InputError

FULL = ("out of memory", "can't allocate memory", "bad_alloc", "Failed to allocate", "bfc_arena")
"""What torch, CUDA, C++ and onnxruntime say when they get no memory."""


MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
"""Of the channels of ImageNet: what the networks' makers take away and divide by."""


def normalized(picture: np.ndarray) -> np.ndarray:
    """uint8 [H, W, 3] as networks trained after ImageNet want it: float32 [1, 3, H, W]."""
    unit = picture.astype(np.float32) / 255
    return ((unit - np.array(MEAN, np.float32)) / np.array(STD, np.float32)).transpose(2, 0, 1)[None].copy()


@functools.lru_cache(maxsize=4)
def open_graph(file: Path) -> Any:
    """An inference session of onnxruntime. InputError where the file is no graph."""
    # without this onnxruntime tells its makers of every session, and keeps an identifier of the machine
    os.environ["ORT_DISABLE_TELEMETRY"] = "1"
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    try:
        return onnxruntime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])
    except Exception as error:
        # onnxruntime has an exception class of its own for every kind of damage
        if out_of_memory(error):
            raise
        raise InputError(f"{file} is damaged, or no ONNX graph: {first_line(error)}") from error


def out_of_memory(error: BaseException) -> bool:
    return isinstance(error, MemoryError) or any(words in str(error) for words in FULL)


@contextlib.contextmanager
def plain_memory_errors() -> Iterator[None]:
    """DeviceError where a network gets no memory, whatever its library raises for that."""
    try:
        yield
    except Exception as error:
        if not out_of_memory(error):
            raise
        text = "Out of memory while networks looked at the picture."
        raise DeviceError(text, "Try --device cpu, or --scene builtin.") from error


def first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
