mod hostile;
mod machines;
