"""Who executes the missing runs: local processes, torchrun, Slurm, Ray. All start `run-one`."""
