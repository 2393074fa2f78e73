"""A SkyPilot task file for a study: written, never started, by this package.

SkyPilot finds the machines and starts the task again when a spot machine is taken away; the
study's folder on a mounted bucket is what makes the second start a continuation. The study
itself stands in the file, so that the file is all that is needed besides this checkout.
"""

import re

import yaml

from lorastudy.config.models import Study
from lorastudy.config.study_file import dump_study

_END = "END_OF_STUDY"


class _Dumper(yaml.SafeDumper):
    """Writes scripts as blocks, which people can read."""


_Dumper.add_representer(
    str,
    lambda dumper, text: dumper.represent_scalar(
        "tag:yaml.org,2002:str", text, style="|" if "\n" in text else None
    ),
)


def make_sky_task(study: Study, *, gpus: int, cpus: int) -> str:
    """The YAML of a managed job that runs the whole study, one run a GPU at a time."""
    name = re.sub(r"[^a-z0-9]+", "-", study.name.lower()).strip("-")
    resources: dict[str, object] = {"cpus": f"{cpus}+", "use_spot": True}
    if gpus:
        resources["accelerators"] = f"A100:{gpus}"
    command = f"./run lorastudy run study.yaml --out /study --jobs {max(gpus, 1)}"
    task = {
        "name": name,
        "resources": resources,
        "workdir": ".",
        "file_mounts": {"/study": {"name": f"lorastudy-{name}", "mode": "MOUNT_CACHED"}},
        "setup": "./run setup",
        "run": f"cat > study.yaml <<'{_END}'\n{dump_study(study)}{_END}\n{command}\n",
    }
    head = (
        "# Start it with:  sky jobs launch THIS_FILE\n"
        "# The bucket keeps the study: when the machine is taken away, the next one goes on.\n"
    )
    return head + yaml.dump(task, Dumper=_Dumper, sort_keys=False, width=1000)
