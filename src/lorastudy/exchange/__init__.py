"""Results in the shapes that other programs read: model cards, lm-eval, PEFT, trackers."""
