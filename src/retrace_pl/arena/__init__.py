"""The arena: unlearning methods side by side, every one audited with the same models, attacks and budgets."""
