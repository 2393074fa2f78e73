"""The report of a study: tables, figures and one page, made from `Findings` only."""
