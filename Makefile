# The developer's menu. `make` checks everything that CI checks.
PY := .venv/bin/python

check: lint types test

setup:
	python3 -m venv .venv && .venv/bin/pip install -q -c constraints.txt -e '.[test]'

lint:
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .

types:
	.venv/bin/mypy

test:
	.venv/bin/pytest -n 2 --dist worksteal

fix:
	.venv/bin/ruff check --fix .
	.venv/bin/ruff format .

docs:
	$(PY) docs/make.py

bench:
	for b in startup rasterize fit generate plan scene synth engines; do $(PY) benchmarks/bench_$$b.py || exit 1; done

stress:
	$(PY) benchmarks/stress.py

.PHONY: check setup lint types test fix docs bench stress
