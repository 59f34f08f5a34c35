"""What all networks share: normalized input, ONNX graphs on the CPU, and one error for too little memory."""

import contextlib
import functools
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from paintproc.errors import DeviceError, InputError

MEMORY_MESSAGES = ("out of memory", "can't allocate memory", "bad_alloc", "Failed to allocate", "bfc_arena")
"""Parts of the error messages of torch, CUDA, C++ and onnxruntime when memory does not suffice."""
MEAN = (0.485, 0.456, 0.406)
"""Mean of each sRGB channel of ImageNet; the networks expect it subtracted."""
STD = (0.229, 0.224, 0.225)
"""Standard deviation of each sRGB channel of ImageNet; the networks expect to be divided by it."""


def normalized(picture: np.ndarray) -> np.ndarray:
    """Normalize `picture`, uint8 [H, W, 3], with the mean and deviation of ImageNet: float32 [1, 3, H, W]."""
    unit = picture.astype(np.float32) / 255
    return ((unit - np.array(MEAN, np.float32)) / np.array(STD, np.float32)).transpose(2, 0, 1)[None].copy()


@functools.lru_cache(maxsize=4)
def open_graph(file: Path) -> Any:
    """Open `file` as an onnxruntime session on the CPU. InputError where it is not an ONNX graph."""
    # otherwise onnxruntime reports every session to its makers and stores an identifier of this machine
    os.environ["ORT_DISABLE_TELEMETRY"] = "1"
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    try:
        return onnxruntime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])
    except Exception as error:
        # onnxruntime has a separate exception class for every kind of damage
        if out_of_memory(error):
            raise
        raise InputError(f"{file} is damaged, or no ONNX graph: {first_line(error)}") from error


def out_of_memory(error: BaseException) -> bool:
    """True if `error` says that memory did not suffice, on the CPU or on a GPU."""
    return isinstance(error, MemoryError) or any(words in str(error) for words in MEMORY_MESSAGES)


@contextlib.contextmanager
def plain_memory_errors() -> Iterator[None]:
    """Turn the out-of-memory errors of all libraries into DeviceError."""
    try:
        yield
    except Exception as error:
        if not out_of_memory(error):
            raise
        text = "Out of memory while networks looked at the picture."
        raise DeviceError(text, "Try --device cpu, or --scene builtin.") from error


def first_line(error: BaseException) -> str:
    """The first line of an error's message, at most 200 characters; its class where there is no message."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
