"""What every other package may use: errors, whole-file writes, where backbones come from."""
