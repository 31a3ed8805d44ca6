"""Makes a prepared model of any float model: changes opset and precision, folds, rewrites."""
