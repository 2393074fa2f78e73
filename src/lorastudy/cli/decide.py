"""`decide`: which arm to take, under limits."""

from typing import Annotated

import typer

from lorastudy.cli import options
from lorastudy.cli.options import AsJson, StudyDir
from lorastudy.store.folders import StudyFolder

DeviceMemory = Annotated[
    str | None,
    typer.Option(metavar="SIZE", help="Memory of the device that will train it, e.g. 8GB."),
]
Time = Annotated[
    str | None, typer.Option(metavar="TIME", help="Time to train one run, e.g. 1h or 90min.")
]
Size = Annotated[
    str | None, typer.Option(metavar="SIZE", help="Stored weights of the arm, e.g. 50MB.")
]
Margin = Annotated[
    str | None,
    typer.Option(
        metavar="NATS", help="Arms this close are as good, e.g. 0.01; default: that of the study."
    ),
]
Forget = Annotated[
    str | None,
    typer.Option(
        metavar="NATS",
        help="Largest loss above the base model on benchmarks with role: forgetting, e.g. 0.02.",
    ),
]


def decide(
    folder: StudyDir,
    *,
    device_memory: DeviceMemory = None,
    time: Time = None,
    size: Size = None,
    margin: Margin = None,
    forget: Forget = None,
    as_json: AsJson = False,
) -> None:
    """Say which arm to take, what it gives up, and what would change the answer.

    Without limits this is the verdict of the report.
    """
    from lorastudy.analysis.decision import at_margin
    from lorastudy.analysis.decision import decide as decide_by_rules
    from lorastudy.analysis.findings import read_findings
    from lorastudy.analysis.limits import read_limits, read_margin
    from lorastudy.cli.show import print_decision
    from lorastudy.report.decision_json import describe_decision

    limits = read_limits(device_memory=device_memory, time=time, size=size, forget=forget)
    wanted = read_margin(margin)
    options.say_doubts(StudyFolder(folder))
    findings = at_margin(read_findings(folder, with_bootstrap=False), wanted)
    decision = decide_by_rules(findings, limits)
    if as_json:
        options.print_json(describe_decision(decision, findings, str(folder)))
    else:
        print_decision(decision, findings, folder)
