"""The folder of a study and of a run: names, typed records, locks and atomic writes."""
