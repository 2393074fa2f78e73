"""The report of a study: statistics, tables, figures and one page, made from records only."""
