"""What every package may use: errors, files, locks and the like; knows nothing of energy."""
