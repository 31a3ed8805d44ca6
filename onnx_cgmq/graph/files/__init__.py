"""Reading and writing of model files, of any size and in any state."""
