.PHONY: setup demo test lint check docs clean

setup demo test lint check docs:
	@./run $@

clean:
	rm -rf .venv .venv.lock .pytest_cache .mypy_cache .ruff_cache .hypothesis build dist site src/*.egg-info
