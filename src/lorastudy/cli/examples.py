"""Examples that `--help` shows below every command; tests execute them."""

EXAMPLES: dict[str, tuple[str, ...]] = {
    "run": (
        "lorastudy run demo",
        "lorastudy run my-study.yaml --jobs 2",
        "lorastudy run my-study.yaml --set training.epochs=1 --out studies/short",
        "lorastudy run studies/demo --arm lora-2 --seed 0",
        "lorastudy run my-study.yaml --until-decided --max-seeds 8",
    ),
    "init": (
        "lorastudy init demo",
        "lorastudy init paper-sound --out my-study.yaml",
        "lorastudy init notes --base openai-community/gpt2 --out my-notes.yaml",
    ),
    "check": (
        "lorastudy check my-study.yaml",
        "lorastudy check demo --probe --price 1.20/h",
        'lorastudy check demo --gpu "RTX 3060"',
        "lorastudy check demo --json",
    ),
    "preview": (
        "lorastudy preview my-study.yaml",
        "lorastudy preview demo -n 1 --part validation",
        "lorastudy preview my-study.yaml --page rows.html",
    ),
    "schema": ("lorastudy schema > lorastudy.schema.json",),
    "status": ("lorastudy status studies/demo", "lorastudy status studies/demo --watch"),
    "table": ("lorastudy table studies/demo", "lorastudy table studies/demo --format latex"),
    "report": ("lorastudy report studies/demo",),
    "decide": (
        "lorastudy decide studies/demo",
        "lorastudy decide studies/demo --size 50MB --time 1h",
        "lorastudy decide studies/demo --margin 0.01 --json",
    ),
    "run-one": ("lorastudy run-one studies/demo RUN_ID --threads 2",),
    "extend": (
        "lorastudy extend studies/demo --seeds 1",
        "lorastudy extend studies/demo --arm more-arms.yaml",
    ),
    "explain": (
        "lorastudy explain studies/demo",
        "lorastudy explain studies/demo --arm lora-2 --all-seeds --rows 64",
    ),
    "fsck": ("lorastudy fsck studies/demo",),
    "export": (
        "lorastudy export studies/demo lora-2 --to my-adapter",
        "lorastudy export studies/demo lora-2 --to my-model --merge",
        "lorastudy export studies/demo --to lm-eval",
    ),
    "push": ("lorastudy push my-adapter my-team/my-adapter",),
    "submit": (
        "lorastudy submit my-study.yaml --engine slurm --partition gpu --gpus 1",
        "lorastudy submit my-study.yaml --engine local --print",
    ),
    "evaluate": (
        "lorastudy evaluate my-model --benchmark notes/test.txt --protocol rows-text",
        "lorastudy evaluate openai-community/gpt2 --adapter my-adapter "
        "--benchmark wikitext-2 --protocol lm-eval-wikitext --json",
    ),
    "compare": (
        "lorastudy compare my-model --adapter a=adapters/a-0 --adapter a=adapters/a-1 "
        "--adapter b=adapters/b-0 --adapter b=adapters/b-1 "
        "--benchmark notes/test.txt --protocol rows-text",
        "lorastudy compare openai-community/gpt2 --adapter mine=my-adapter "
        "--benchmark wikitext-2 --protocol lm-eval-wikitext --out studies/mine",
    ),
    "audit": (
        "lorastudy audit my-model --benchmark notes/test.txt --length 128",
        "lorastudy audit --reported 2.472 --benchmark wikitext-2 --tokenizer openai-community/gpt2",
    ),
}


def show_examples(command: str) -> str:
    """The examples of a command as the text below its help, one per line."""
    return "\n\n".join(("Examples:", *EXAMPLES[command]))
