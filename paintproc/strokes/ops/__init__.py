"""What drawing strokes means (`reference`), and the same computed fast: by numba on the CPU, by Triton on CUDA."""
