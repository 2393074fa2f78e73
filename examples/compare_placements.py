"""Compare LoRA placements with full fine-tuning: a notebook as a script.

Editors show the parts between `# %%` as cells. As a script:  python examples/compare_placements.py
"""

# %% The study: a preset here; a YAML file or ls.Study(...) for your own data
import lorastudy as ls

study = ls.load_study("demo")
facts = ls.check(study)
for arm in facts.arms:
    share = arm.trainable_parameters / arm.total_parameters
    print(f"{arm.name:<10} trains {share:7.2%} in {arm.optimizer_steps} steps")

# %% Run it; executing this cell again goes on where it stopped
folder = "studies/demo"
for event in ls.run(study, out=folder):
    match event:
        case ls.EpochEnded(arm=name, seed=seed, epoch=epoch):
            print(f"{name} seed {seed} epoch {epoch.epoch}: {epoch.validation_loss:.4f} nats/token")
        case ls.RunEnded(run_id=run_id, state=state, reason=reason) if state != "done":
            print(f"{run_id} {state}: {reason}")
        case ls.StudyFinished(report=page):
            print(f"Report: {page}")

# %% What came out: in a notebook, `results` alone shows the verdict and Table I
results = ls.open_results(folder)
print(results)

# %% The same as tables: which arms differ?
separated = results.pairs[results.pairs.verdict.isin(["lower", "higher"])]
print(separated[["benchmark", "protocol", "first", "second", "difference", "low", "high"]])

# %% The LoRA arm with the lowest validation loss, loaded
best_epochs = results.epochs.loc[results.epochs.groupby("run_id").validation_loss.idxmin()]
methods = results.runs.set_index("run_id").method
lora = best_epochs[best_epochs.run_id.map(methods) == "lora"]
winner = lora.groupby("arm").validation_loss.mean().idxmin()
model = results.load(winner)
ids = model.tokenizer("def ", return_tensors="pt").input_ids
print(winner, repr(model.tokenizer.decode(model.generate(input_ids=ids, max_new_tokens=8)[0])))
