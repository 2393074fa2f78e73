"""The Python API: what `import lorastudy` offers, and what combines the rooms below it."""
