"""`fsck`: verify every hash and record of a study's folder."""

from lorastudy.cli import options
from lorastudy.cli.options import AsJson, StudyDir
from lorastudy.errors import StorageError
from lorastudy.store.collect import read_overview
from lorastudy.store.folders import StudyFolder


def fsck(folder: StudyDir, as_json: AsJson = False) -> None:
    """Verify every hash and record in the folder; exit 74 if anything is damaged."""
    from lorastudy.store.checks import check_folder

    read_overview(StudyFolder(folder))  # refuses a folder that is not a study
    found = check_folder(StudyFolder(folder))
    if as_json:
        options.print_json({"n_checked": found.n_files, "damage": found.damage})
    else:
        print(f"{found.n_files} records and checkpoints checked, {len(found.damage)} damaged.")
    if found.damage:
        raise StorageError("\n".join(found.damage))
