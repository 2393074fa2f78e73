"""`import lorastudy` is fast, and its names are what the API promises."""

import json
import subprocess
import sys

import lorastudy as ls

HEAVY = ("torch", "transformers", "pydantic", "pandas", "numpy", "yaml", "typer", "matplotlib")


def in_a_fresh_process(code: str) -> dict[str, object]:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    found = json.loads(done.stdout)
    assert isinstance(found, dict)
    return found


def test_importing_the_package_imports_nothing_heavy_and_is_fast() -> None:
    found = in_a_fresh_process(
        "import sys, time, json; began = time.process_time(); import lorastudy; "
        "seconds = time.process_time() - began; "
        f"print(json.dumps({{'heavy': [m for m in {HEAVY} if m in sys.modules], "
        "'seconds': seconds}))"
    )
    assert found["heavy"] == []
    assert isinstance(found["seconds"], float) and found["seconds"] < 0.1


def test_every_name_of_the_api_can_be_imported() -> None:
    assert {"load_study", "Study", "StudyError", "check", "run", "open_results", "evaluate"} <= set(
        ls.__all__
    )
    assert set(ls.__all__) <= set(dir(ls))
    for name in set(ls.__all__) - {"__version__"}:
        assert callable(getattr(ls, name)), name


def test_names_that_parts_of_the_package_have_too_stay_functions() -> None:
    found = in_a_fresh_process(
        "import json, lorastudy as ls; first = callable(ls.run) and callable(ls.evaluate); "
        "import lorastudy.run.inputs, lorastudy.evaluate.score; "
        "from lorastudy.run.execute import execute_run; "
        "print(json.dumps({'first': first, 'then': callable(ls.run) and callable(ls.evaluate), "
        "'parts': [ls.run.inputs.__name__, ls.evaluate.score.__name__]}))"
    )
    assert found["first"] and found["then"]
    assert found["parts"] == ["lorastudy.run.inputs", "lorastudy.evaluate.score"]


def test_a_name_that_does_not_exist_is_an_attribute_error() -> None:
    assert not hasattr(ls, "train_everything")
