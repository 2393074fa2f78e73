.PHONY: setup demo test lint check clean

setup demo test lint check:
	@./run $@

clean:
	rm -rf .venv .venv.lock .pytest_cache .mypy_cache .ruff_cache .hypothesis build dist src/*.egg-info
