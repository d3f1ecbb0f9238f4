"""What an update costs: energy and carbon, the measures of a training, and the training itself."""
