"""A SkyPilot task file for a study; this package writes it and never starts it.

SkyPilot finds the machines, and starts the task again when a spot machine is taken away. The
second start continues the first, because the study's folder is on a mounted bucket. The file
contains the study itself, so nothing else is needed except this checkout.
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
    """The YAML of a managed job for the whole study, with one run per GPU at a time."""
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
        "# The bucket keeps the study: when the machine is taken away, the next one continues.\n"
    )
    return head + yaml.dump(task, Dumper=_Dumper, sort_keys=False, width=1000)
